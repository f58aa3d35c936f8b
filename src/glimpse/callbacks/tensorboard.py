"""What TensorBoard shows beside the curves: the config as text, both splits in one chart, HPARAMS."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from glimpse.config import flat

LAYOUT = {
    "training and validation": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
    }
}


def write_start(logger: Logger, config_yaml: str) -> None:
    """The resolved configuration as text, and a chart that has both splits on the same axes."""
    if isinstance(logger, TensorBoardLogger):
        writer = logger.experiment
        writer.add_text("config", f"```yaml\n{config_yaml}\n```", 0)
        writer.add_custom_scalars(LAYOUT)


def write_result(
    logger: Logger, config: Mapping[str, Any], metrics: Mapping[str, float], step: int
) -> None:
    """A row of the HPARAMS tab: what was chosen and what came out, under final/…"""
    if not isinstance(logger, TensorBoardLogger):
        return
    final = {f"final/{name}": value for name, value in metrics.items()}
    writer = logger.experiment
    for name, value in final.items():  # first: this opens the file anew after training closed it
        writer.add_scalar(name, value, step)
    for summary in hparams(flat(config), final):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(summary)
    writer.close()
