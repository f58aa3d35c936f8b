"""The story of one run: data, network, training, measurement, record."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, OmegaConf

from glimpse import lr_find, precision, tensorboard
from glimpse.allocator import keep_freed_memory
from glimpse.assembly import (
    build_classifier,
    build_data,
    build_network,
    build_trainer,
    device_of,
    global_batch_size,
    num_processes,
    remark_on,
)
from glimpse.callbacks import pictures
from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.callbacks.epoch_record import EpochRecord, logged
from glimpse.callbacks.pictures import Pictures
from glimpse.callbacks.progress import Progress
from glimpse.callbacks.pruning import Judge, Pruning
from glimpse.callbacks.run_state import RunState
from glimpse.callbacks.skip_nonfinite import SkipNonfinite
from glimpse.callbacks.stop_on_signal import PrunedError, StopOnSignal
from glimpse.checkpoint_file import AtomicCheckpointIO
from glimpse.classifier import ImageClassifier
from glimpse.config.build import own_packages, plain, require_targets
from glimpse.config.combinations import check_monitors
from glimpse.console import console
from glimpse.data.module import ImageDataModule
from glimpse.distributed.gather import of_all_processes
from glimpse.distributed.place import Place
from glimpse.distributed.team import gathered
from glimpse.durations import duration
from glimpse.environment import environment
from glimpse.files import discard_partials, write_json
from glimpse.folder_lock import held
from glimpse.initialise import initialise
from glimpse.lightning_compat import (
    IS_FIRST_PROCESS,
    epochs_trained,
    set_up_callbacks,
    settle,
    skip_empty_hooks,
    stop_profiling,
)
from glimpse.loggers.building import build_loggers, remember_ids
from glimpse.loggers.record import close, write_result, write_start
from glimpse.model_summary import count_parameters, layer_table
from glimpse.monitor import monitor_of
from glimpse.resume import Start, start_of_resume
from glimpse.seeding import seed_all
from glimpse.summary import Summary, shown, summarised
from glimpse.threads import threads_restored, use_one_thread_if_small

NUM_WORST = 5  # classes whose recall is printed


def run(
    config: DictConfig,
    folder: Path,
    names: Mapping[str, str],
    *,
    judge: Judge | None = None,
    afterwards: str = "",
) -> float | None:
    """Train a model on a dataset and leave the record in `folder`.

    Args:
        config: composed and checked.
        folder: the run folder.
        names: the chosen `data`, `model` and so on, for messages and reports.
        judge: decides after each epoch whether a trial of a search stops early.
        afterwards: the rest of the sweep after this run, for the progress bar.

    Returns:
        The best value of the monitor, val/acc unless the configuration names another; None without
        validation.

    Raises:
        UserError: the user can fix the cause, or another process works in the folder.
        Interrupted: Ctrl-C or a signal stopped the run.
    """
    torch.set_float32_matmul_precision("high")  # TF32 where fp32 meets tensor cores
    watched = monitor_of(config)
    with (
        threads_restored(),
        held(folder) if IS_FIRST_PROCESS else nullcontext(),
        summarised(config, folder, names) as summary,
        gathered(
            _for_the_others(config, folder, names),
            1 if config.check else num_processes(config),
            summary.end,
        ) as team,
        ExitStack() as at_end,
    ):
        device = device_of(config)
        settle(device)
        team.meet_after_restart(device)
        keep_freed_memory()
        require_targets(config)
        world_size = team.place.world_size
        batch_size = global_batch_size(config, world_size)
        with team.in_turn():
            data = build_data(config)
        console.print(f"{names['data']}: {data.describe()}")
        if data.augment is not None and data.augment.remark:
            console.print(data.augment.remark)
        start: Start | None = None
        if config.resume:
            found_start = team.agreed(
                "resume",
                lambda: asdict(
                    start_of_resume(
                        folder, config, data, batch_size, had_finished=summary.had_finished
                    )
                ),
            )
            start = Start(**found_start)
        resume_from = start.checkpoint if start else None
        seed_all(config.seed)
        network = build_network(config.model, data.spec)
        if remark := remark_on(network):
            console.print(remark)
        if resume_from is None:
            initialise(network, data, config.model.get("weights"))
        summary.update(parameters=count_parameters(network))
        console.print(layer_table(network, data.spec, every_layer=config.check))
        chosen = precision.choose(config.trainer.precision, network, data.spec, device)
        console.print(f"precision {chosen.name}: {chosen.reason}")
        pixels = batch_size // world_size * data.spec.height * data.spec.width
        if device == "cpu" and use_one_thread_if_small(pixels, count_parameters(network)):
            console.print("one thread: batches this small gain nothing from more")
        network.to(memory_format=chosen.memory_format)
        data.batches.lay_out(chosen.memory_format)
        classifier = build_classifier(config, network, data)
        if config.task == "fit":
            check_monitors(OmegaConf.create(plain(config)), classifier.logged_names)
        skip_empty_hooks(classifier)
        if config.compile:
            network.compile(mode="default" if config.compile is True else config.compile)
        record = EpochRecord(folder, classifier.logged_names)
        saving = config.checkpoints
        checkpoints = Checkpoints(folder / "checkpoints", watched, top_k=saving.top_k)
        is_told = config.check or (start is not None and start.is_over)
        named_loggers = {} if is_told else build_loggers(config, folder, start)
        loggers = list(named_loggers.values())
        stop = StopOnSignal(checkpoints, every_minutes=saving.every_minutes)
        # After the epoch's metrics, in order:
        ours = [
            RunState(plain(config), data),
            stop,
            record,
            checkpoints,
            Progress(checkpoints, afterwards=afterwards),
        ]
        if config.on_nonfinite == "skip":
            ours.append(SkipNonfinite(config.max_nonfinite_steps))
        if judge:
            ours.append(Pruning(judge, watched.name, stop))
        trainer = build_trainer(config, chosen.name, loggers, folder, ours, place=team.place)
        if config.check:
            set_up_callbacks(trainer, classifier, data)
            _push_one_batch(classifier, data)
            return None
        if start is not None:
            set_up_callbacks(trainer, classifier, data)  # refuse before the record changes
        summary.accept()
        summary.update(monitor=watched.name, mode=watched.mode)
        settings = tensorboard.hyperparameters(plain(config), names)
        at_end.push(lambda kind, *_: close(loggers, failed=kind is not None))
        if IS_FIRST_PROCESS:
            discard_partials(folder)
            if resume_from is not None:
                checkpoints.begin_from(Path(resume_from))
            found = environment(
                device=device,
                precision=chosen.name,
                place=team.place,
                packages=own_packages(config),
            )
            write_json(folder / "environment.json", found)
            if world_size > 1:
                _print_batch(config, team.place, batch_size)
            remember_ids(named_loggers, folder)
            write_start(loggers, OmegaConf.to_yaml(config, resolve=True), settings, folder, start)
        team.wait_for_all(
            "ready"
        )  # here an error elsewhere ends the wait; in Lightning it would not
        if config.task == "lr_find":
            found = lr_find.find(
                config,
                classifier,
                data,
                lambda changed, test: build_trainer(
                    changed, chosen.name, [], folder, [test], place=team.place
                ),
                loggers=loggers,
                folder=folder,
            )
            summary.update(metrics=found)
            return None
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=resume_from, weights_only=True)
        except PrunedError:
            summary.prune()
        finally:
            summary.update(
                epochs=epochs_trained(trainer),
                best_epoch=checkpoints.best_epoch,
                images_per_second=record.images_per_second(),
                metrics=dict(checkpoints.best_metrics),
            )
            if config.on_nonfinite == "skip":
                summary.update(skipped_steps=classifier.num_skipped)
        num_trained = _num_trained_on(record, data)
        if config.test and not summary.is_pruned:
            found = _final_metrics(config, trainer, classifier, data, checkpoints, num_trained)
            summary.update(metrics=summary.metrics | found)
        reported = "test" if "test/acc" in summary.metrics else "val"
        summary.update(majority_acc=data.majority_accuracy(reported))
        recall = checkpoints.best_recall if reported == "val" else classifier.recall.get("test")
        if recall is not None:
            summary.update(class_recall=_by_name(recall, data))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Pictures) and config.test and not summary.is_pruned:
                callback.draw_result(trainer, classifier)
        if IS_FIRST_PROCESS:
            pictures.draw_curves(trainer)
            write_result(loggers, settings, summary.metrics, trainer.global_step)
    if IS_FIRST_PROCESS:
        _print_result(config, summary, data, num_trained=num_trained)
    return checkpoints.best_value


def _for_the_others(config: DictConfig, folder: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """The message to the other processes, which build no network for `check=true`."""
    if config.check:
        return {"exit": 0, "error": ""}
    return {"config": plain(config), "folder": str(folder.resolve()), "names": dict(names)}


def _print_batch(config: DictConfig, place: Place, batch_size: int) -> None:
    nodes = f" on {place.num_nodes} nodes" if place.num_nodes > 1 else ""
    console.print(
        f"{place.world_size} processes{nodes} × {batch_size // place.world_size} images = "
        f"{batch_size} in a batch; optimizer.lr={config.optimizer.lr:g} is not scaled to it"
    )


def _push_one_batch(classifier: ImageClassifier, data: ImageDataModule) -> None:
    """`check=true`: one batch forward and back, on the CPU."""
    batch = data.batches.to_network(
        next(iter(data.batches.loader("train", training=True))), training=True
    )
    loss = classifier.loss_of(classifier.network(batch.images), batch.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    classifier.new_optimizer().step()
    size = "×".join(map(str, batch.images.shape))
    console.print(f"one batch of {size} went forward and back: loss {loss.item():.4f}")


def _by_name(recall: Sequence[float | None], data: ImageDataModule) -> dict[str, float]:
    """The recall of each class that has images, by its name."""
    pairs = zip(data.spec.class_names, recall, strict=True)
    return {name: float(f"{value:.7g}") for name, value in pairs if value is not None}


def _num_trained_on(record: EpochRecord, data: ImageDataModule) -> int:
    """The number of training images in an epoch: all, unless an argument such as
    trainer.limit_train_batches ended each epoch early. All processes must call this together."""
    of_first_process, *_ = of_all_processes(record.most_images)  # which has the most
    return min(of_first_process, len(data.splits["train"].rows))


def _final_metrics(
    config: DictConfig,
    trainer: pl.Trainer,
    classifier: ImageClassifier,
    data: ImageDataModule,
    checkpoints: Checkpoints,
    num_trained: int,
) -> dict[str, float]:
    """The best checkpoint's metrics on the training set, in evaluation mode, and on the test set.

    At most as many training images are measured as an epoch trained on; `test=val` skips them.
    """
    if checkpoints.best.exists() and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        best = AtomicCheckpointIO().load_checkpoint(checkpoints.best)
        classifier.load_state_dict(best["state_dict"])
    stop_profiling(trainer)
    splits = ["val", "test"] if config.tta else ["test"]
    if config.test != "val" and num_trained:
        splits.insert(0, "train")
    metrics: dict[str, float] = {}
    for split in splits:
        if split in data.splits:
            data.batches.score(split, num_images=num_trained if split == "train" else None)
            trainer.test(classifier, datamodule=data, verbose=False)
            found = logged(trainer)
            metrics |= {
                n: v for n, v in found.items() if n.startswith(f"{split}/") and n != "train/top5"
            }
    return metrics


def _print_result(
    config: DictConfig, summary: Summary, data: ImageDataModule, *, num_trained: int
) -> None:
    if summary.is_pruned:
        console.print(f"the search stopped this run after epoch {summary.values['epochs']}")
    for split in ("train", "val", "test"):
        if f"{split}/acc" in summary.metrics:
            accuracy = summary.metrics[f"{split}/acc"]
            majority = data.majority_accuracy(split)
            num_images = len(data.splits[split].rows)
            part = ""
            if split == "train" and num_trained < num_images:
                part = (
                    f"  on {num_trained:,} of {num_images:,} images, as many as an epoch trained on"
                )
            console.print(
                f"{split:5} accuracy {accuracy:.4f}  (majority class: {majority:.4f}){part}"
            )
        more = _more_metrics(config, summary, split)
        if more:
            console.print(f"{split:5} {more}")
        if f"{split}/acc_flip" in summary.metrics:
            accuracy = summary.metrics[f"{split}/acc_flip"]
            console.print(f"{split:5} accuracy {accuracy:.4f}  with flip averaging (tta=flip)")
    if recall := summary.values.get("class_recall"):
        rarest = sorted(recall.items(), key=lambda item: item[1])[:NUM_WORST]
        listed = ", ".join(f"{name} {value:.4f}" for name, value in rarest)
        which = "of each class" if len(recall) <= NUM_WORST else f"of the {NUM_WORST} worst classes"
        console.print(f"recall {which} (their sizes differ): {listed}")
    if "test" not in data.splits:
        console.print(
            "no test set: the validation set also chose the checkpoint, so its accuracy is optimistic"
        )
    if summary.values["best_epoch"]:
        console.print(f"best epoch {summary.values['best_epoch']} by {monitor_of(config).name}")
    console.print(f"run folder {shown(summary.folder)}")
    console.print(f"curves: tensorboard --logdir {shlex.quote(config.output_dir)}")
    console.print(f"took {duration(summary.values['seconds'])}")


def _more_metrics(config: DictConfig, summary: Summary, split: str) -> str:
    """The metrics of a split that `metrics` adds, in one line."""
    named = {name: summary.metrics.get(f"{split}/{name}") for name in config.metrics or {}}
    return "  ".join(f"{name} {value:.4f}" for name, value in named.items() if value is not None)
