"""Train on small images first: most of what a convnet learns early costs a quarter of the time.

Source: Howard 2018, Training ImageNet in 3 hours for $25 (DAWNBench), progressive resizing; Tan and Le
2021, EfficientNetV2, section 4.2. Images are shrunk on the device before they are augmented. Validation
is at the full size throughout: a network answers poorly at a size that it has not been trained at, so
no checkpoint before the last size is taken for the best.
"""

import math
from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from glimpse.data.module import ImageDataModule
from glimpse.errors import UserError

MULTIPLE = 8  # pixels that a side is rounded to, so that halving by pooling loses little


class ProgressiveSizes(Callback):
    """Tell the batches the size of each epoch's training images.

    Args:
        fractions: of the network's input side, one for each stage; the last is 1.
        until: the share of all epochs after which each stage but the last ends; rising.

    Raises:
        UserError: the stages do not fit together; from `setup`, where the run has no end or ends
            before the last size, images are not square or have no pixels, or the network takes one
            size only.
    """

    def __init__(self, *, fractions: Sequence[float], until: Sequence[float]) -> None:
        rising = [0.0, *until, 1.0]
        if (
            len(until) != len(fractions) - 1
            or sorted(set(rising)) != rising
            or not all(0 < fraction <= 1 for fraction in fractions)
            or fractions[-1] != 1
        ):
            raise UserError(
                f"callbacks.progressive_sizes: fractions={list(fractions)}, until={list(until)}: expected "
                "fractions that end with 1, and one rising share of the epochs fewer"
            )
        self.fractions = fractions
        self.until = until

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what could not be trained to its end."""
        if stage != "fit":
            return
        self.data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(self.data, ImageDataModule)
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise UserError(
                "callbacks=[progressive_sizes]: the run has no end; set trainer.max_epochs"
            )
        spec = self.data.spec
        if spec.height != spec.width:
            raise UserError(
                f"callbacks=[progressive_sizes]: images are {spec.width}×{spec.height}: "
                "type data.size=64 to make them square"
            )
        self.max_epochs = trainer.max_epochs
        side = self._side(self.max_epochs - 1)
        if side is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            last_stage = self.until[-1]
            raise UserError(
                f"callbacks=[progressive_sizes]: all of trainer.max_epochs={self.max_epochs} are of "
                f"small images, the last of {side}×{side}: type "
                f"trainer.max_epochs={math.ceil(1 / (1 - last_stage) - 1e-9)} or more"
            )
        sides = {self._side(epoch) for epoch in range(self.max_epochs)} - {None}
        network = pl_module.network
        assert isinstance(network, nn.Module)
        for side in sorted(side for side in sides if side is not None):
            _require(network, torch.zeros(1, spec.channels, side, side))

    def _side(self, epoch: int) -> int | None:
        """Of an epoch's training images, in pixels; None for the full size."""
        stage = sum(epoch / self.max_epochs >= share - 1e-9 for share in self.until)
        full = self.data.spec.height
        side = round(full * self.fractions[stage] / MULTIPLE) * MULTIPLE
        return None if stage == len(self.until) else min(max(side, MULTIPLE), full)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The stage is a function of the epoch, so that a resumed run is in the right one."""
        self.data.batches.train_at(self._side(trainer.current_epoch))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that is resumed inside an epoch does not start it again."""
        self.data.batches.train_at(self._side(trainer.current_epoch))


def _require(network: nn.Module, image: torch.Tensor) -> None:
    """Raises UserError where the network does not take an image of this size."""
    was_training = network.training
    weights = next(network.parameters())
    network.eval()
    try:
        with torch.no_grad():
            network(image.to(weights.device, weights.dtype))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"callbacks=[progressive_sizes]: {type(network).__name__} does not take images of "
            f"{image.shape[2]}×{image.shape[3]}: type a network for any size, such as model=convnet_bn"
        ) from error
    finally:
        network.train(was_training)
