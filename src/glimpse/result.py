"""The lines that a run prints at its end: its result, and where to find the rest."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from glimpse.command import in_shell
from glimpse.console import console
from glimpse.data.module import ImageDataModule
from glimpse.monitor import monitor_of, reported_split
from glimpse.summary import Summary, relative_to_here
from glimpse.text import decimals, duration

NUM_WORST = 5  # classes whose recall is printed


def print_result(
    config: DictConfig, summary: Summary, data: ImageDataModule, *, num_trained: int
) -> None:
    """Print the result of a run that has ended, each epoch of which trained on `num_trained` images."""
    if summary.is_pruned:
        console.print(f"the search stopped this run after epoch {summary.values['epochs']}")
    measured = {"train": num_trained, **summary.values.get("measured_images", {})}
    for split in ("train", "val", "test"):
        _print_split(split, config, summary.metrics, data, measured.get(split))
    if recall := summary.values.get("class_recall"):
        split = reported_split(summary.metrics)
        rarest = sorted(recall.items(), key=lambda item: item[1])[:NUM_WORST]
        listed = ", ".join(f"{name} {value:.4f}" for name, value in rarest)
        which = "of each class" if len(recall) <= NUM_WORST else f"of the {NUM_WORST} worst classes"
        console.print(f"{split:5} recall {which} (their sizes differ): {listed}")
    if "test" not in data.splits:
        remedy = " (data.val_fraction=0.2 makes one)" if config.data.get("folds") is None else ""
        console.print(
            "no test set: the validation set also chose the checkpoint, so its accuracy is optimistic"
            f"{remedy}"
        )
    if summary.values["best_epoch"]:
        best = f"best epoch {summary.values['best_epoch']} by {monitor_of(config).name}"
        console.print(f"{best} (* marks each new best)")
    console.print(f"run folder {relative_to_here(summary.folder)}")
    if (config.logger or {}).get("tensorboard"):
        folder = summary.folder
        is_below = folder.resolve().is_relative_to(Path(config.output_dir).resolve())
        # A resumed run may be elsewhere.
        place = config.output_dir if is_below else relative_to_here(folder)
        console.print(f"curves: tensorboard --logdir {in_shell(str(place))}")
    elif (curves := summary.folder / "figures" / "curves.png").is_file():  # none without an epoch
        console.print(f"curves: {relative_to_here(curves)}")
    console.print(f"took {duration(summary.values['seconds'])}")


def _print_split(
    split: str,
    config: DictConfig,
    metrics: Mapping[str, float],
    data: ImageDataModule,
    num_measured: int | None,
) -> None:
    """Print the metrics of a split, if it was measured; all of its images were, unless a number is given."""
    if f"{split}/acc" in metrics:
        num_images = len(data.splits[split].rows)
        part, whose = "", "majority class"
        if num_measured is not None and num_measured < num_images:
            part = f"  on {num_measured:,} of {num_images:,} images"
            part += ", as many as an epoch trained on" if split == "train" else ""
            whose = "majority class of all"
        majority = data.majority_accuracy(split)
        accuracy = metrics[f"{split}/acc"]
        console.print(f"{split:5} accuracy {accuracy:.4f}  ({whose}: {majority:.4f}){part}")
    more = {name: metrics.get(f"{split}/{name}") for name in config.metrics or {}}
    if shown := "  ".join(f"{name} {decimals(v)}" for name, v in more.items() if v is not None):
        console.print(f"{split:5} {shown}")
    if f"{split}/acc_{config.tta}" in metrics:
        accuracy = metrics[f"{split}/acc_{config.tta}"]
        console.print(f"{split:5} accuracy {accuracy:.4f}  averaged over views (tta={config.tta})")
