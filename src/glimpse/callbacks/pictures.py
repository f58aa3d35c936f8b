"""Pictures of a run: a batch as the network sees it, and the curves of both splits."""

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torchvision.utils import make_grid

from glimpse.console import IS_FIRST_PROCESS
from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule

NUM_IMAGES = 64
SHOWN_SIDE = 64  # pixels; smaller images are enlarged to about this


class BatchPicture(Callback):
    """`figures/train_batch.png` and an image in TensorBoard: the first batch, after augmentation.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "figures" / "train_batch.png"

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step or batch_idx or not IS_FIRST_PROCESS or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if batch.images.ndim == 2:  # features have no picture
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        images = data.to_pixels(batch.images[:NUM_IMAGES].detach()).cpu()
        factor = max(1, SHOWN_SIDE // max(images.shape[-2:]))
        images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        grid = (make_grid(images, nrow=8, padding=2, pad_value=1.0) * 255).to(torch.uint8)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(self.path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("train_batch", grid, 0)


def draw_curves(folder: Path) -> Path | None:
    """`figures/curves.png` of a run from its metrics.csv: loss and accuracy of both splits.

    Returns:
        The picture's path; None where there are no epochs to draw.
    """
    from matplotlib.figure import Figure  # a second, only when drawing

    source = folder / "metrics.csv"
    if not source.exists():
        return None
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axis, metric, title in zip(
        figure.subplots(1, 2), ("loss", "acc"), ("loss", "accuracy"), strict=True
    ):
        for split, colour in (("train", "tab:blue"), ("val", "tab:orange")):
            points = [
                (int(r["epoch"]), float(r[f"{split}/{metric}"]))
                for r in rows
                if r[f"{split}/{metric}"]
            ]
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    label=split,
                    color=colour,
                    marker="." if len(points) < 30 else None,
                )
        _label(axis, title)
    path = folder / "figures" / "curves.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _label(axis: Any, title: str) -> None:
    axis.set_xlabel("epoch")
    axis.set_ylabel(title)
    axis.grid(alpha=0.3)
    axis.legend()
    axis.xaxis.get_major_locator().set_params(integer=True)
