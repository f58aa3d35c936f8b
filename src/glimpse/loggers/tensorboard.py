"""TensorBoard content besides the curves: config, charts of both splits, pictures, HPARAMS."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

LAYOUT = {
    "training and validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
    }
}


def write_start(logger: TensorBoardLogger, config_yaml: str, step: int) -> None:
    """Write the resolved configuration as text, and charts with both splits on the same axes.

    The run starts with it at this step, which is above 0 if it is resumed with other settings.
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
