"""TensorBoard content besides the curves: config, charts of both splits, pictures, HPARAMS."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from glimpse.config.schema import REPORTED

LAYOUT = {
    "training and validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
    }
}

SINGLE_KEYS = (
    "seed",
    "data.batch_size",
    "data.normalize",
    "data.val_fraction",
    "trainer.max_epochs",
)


def write_start(logger: TensorBoardLogger, config_yaml: str, step: int) -> None:
    """Write the resolved configuration as text, and charts with both splits on the same axes.

    Args:
        logger: The logger.
        config_yaml: The configuration.
        step: The step at which the run starts with it; above 0 if it is resumed with other
            settings.
    """
    writer = logger.experiment
    writer.add_text("config", f"```yaml\n{config_yaml}\n```", step)
    if not step:
        writer.add_custom_scalars(LAYOUT)


def write_picture(logger: TensorBoardLogger, path: Path, step: int) -> None:
    """Write a PNG as it is. `add_image` would decode it and encode it again."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(path) as picture:
        width, height = picture.size
    image = Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
    )
    # The public methods would write additional entries.
    writer = logger.experiment._get_file_writer()
    writer.add_summary(Summary(value=[Summary.Value(tag=path.stem, image=image)]), step)


def hyperparameters(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The contents of a row in the HPARAMS tab: choices and numbers that people vary, not paths."""
    groups = tuple(group for group in REPORTED if group != "data")
    chosen = {
        key: value
        for key, value in _flat(config).items()
        if key in SINGLE_KEYS or (key.startswith(groups) and not key.endswith("_target_"))
    }
    return {**names, **chosen}


def write_result(
    logger: TensorBoardLogger, chosen: Mapping[str, Any], metrics: Mapping[str, float], step: int
) -> None:
    """Write a row of the HPARAMS tab: the choices, and the results under final/…"""
    if not metrics:
        return
    from torch.utils.tensorboard.summary import hparams  # imports TensorBoard

    final = {f"final/{name}": value for name, value in metrics.items()}
    writer = logger.experiment
    for name, value in final.items():  # must come first: it opens the file
        writer.add_scalar(name, value, step)
    for summary in hparams(dict(chosen), final):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(summary, step)


def close(logger: TensorBoardLogger, status: str) -> None:
    """Close the file, if there is one."""
    TensorBoardLogger.finalize(logger, status)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to dotted keys. Lists become text, as the HPARAMS tab requires."""
    rows: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows |= _flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = (
                value if isinstance(value, bool | int | float | str) else str(value)
            )
    return rows
