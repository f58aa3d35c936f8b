"""Train on small images first. Early learning then costs a convnet about a quarter of the time.

Source: Howard 2018, Training ImageNet in 3 hours for $25 (DAWNBench), progressive resizing; Tan and
Le 2021, EfficientNetV2, section 4.2. Images are shrunk on the device before they are augmented.
Validation always uses the full size. A network performs poorly at a size it has not been trained
at, so a checkpoint can become the best only during the last stage.
"""

import math
from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import nn

from glimpse.callbacks.time_left import steps_of_an_epoch
from glimpse.console import console
from glimpse.data.module import data_of
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.lightning_compat import is_dry
from glimpse.one_pass import evaluating

MULTIPLE = 8  # pixels; sides are rounded to multiples of it, so that pooling discards little


class ProgressiveSizes(Callback):
    """Set the size of each epoch's training images.

    Args:
        fractions: The height and width of the images in each stage, relative to the network's
            input. The last fraction is 1.
        until: For each stage except the last, the fraction of all epochs after which it ends;
            increasing.

    Raises:
        UserError: the stages are inconsistent. Also from `setup`, if the run has no end or ends
            before the last stage, or the network accepts only one size.
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
                f"callbacks.progressive_sizes: fractions={list(fractions)}, until={list(until)}: "
                "expected fractions that end with 1, and in until an increasing share of the epochs "
                "for each fraction except the last"
            )
        self.fractions = fractions
        self.until = until

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reject a run that would fail, or would end before it reaches the full size."""
        if stage != "fit":
            return
        self.data = data_of(trainer)
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise UserError(
                "callbacks=[progressive_sizes] needs the number of epochs: type trainer.max_epochs=…"
            )
        self.max_epochs = trainer.max_epochs
        last = self._size(self.max_epochs - 1)
        if last is not None and not is_dry(trainer):
            last_stage = self.until[-1]
            raise UserError(
                f"callbacks=[progressive_sizes]: with trainer.max_epochs={self.max_epochs}, even the "
                f"last epoch trains on small images ({last[0]}×{last[1]}): type "
                f"trainer.max_epochs={math.ceil(1 / (1 - last_stage) - 1e-9)} or more"
            )
        sizes = {self._size(epoch) for epoch in range(self.max_epochs)} - {None}
        if not sizes:
            spec = self.data.spec
            console.print(
                f"progressive_sizes reduces nothing: images of {spec.height}×{spec.width} are too small, "
                "or there are too few epochs"
            )
        network = pl_module.network
        assert isinstance(network, nn.Module)
        for height, width in sorted(size for size in sizes if size is not None):
            _require(network, torch.zeros(1, self.data.spec.channels, height, width))

    def _size(self, epoch: int) -> tuple[int, int] | None:
        """The height and width of an epoch's training images in pixels; None for the full size.

        Images of a few pixels have no smaller multiple of 8.
        """
        stage = sum(epoch / self.max_epochs >= share - 1e-9 for share in self.until)
        if stage == len(self.until):
            return None
        spec = self.data.spec
        size = _scaled(spec, self.fractions[stage])
        return None if size == (spec.height, spec.width) else size

    def relative_cost(self, epoch: int) -> float:
        """What a step of an epoch costs, in proportion to one at full size: the share of the area."""
        size = self._size(epoch)
        return math.prod(size) / (self.data.spec.height * self.data.spec.width) if size else 1.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the size of the epoch. It depends on the epoch alone, so a resume needs no state."""
        self.data.batches.train_at(self._size(trainer.current_epoch))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the size for a run resumed within an epoch, which skips `on_train_epoch_start`.

        The number of steps in an epoch is known only now.
        """
        if not is_dry(trainer):
            self._require_steps(trainer.max_steps, steps_of_an_epoch(trainer))
        self.data.batches.train_at(self._size(trainer.current_epoch))

    def _require_steps(self, max_steps: int, steps_of_an_epoch: int) -> None:
        """Raise a UserError if `max_steps` ends the run before it reaches the full size."""
        last = self._size((max_steps - 1) // steps_of_an_epoch) if max_steps > 0 else None
        if last is not None:
            epochs = sum(self._size(epoch) is not None for epoch in range(self.max_epochs)) + 1
            raise UserError(
                f"callbacks=[progressive_sizes]: trainer.max_steps={max_steps} ends the run while it "
                f"trains on small images ({last[0]}×{last[1]}): type "
                f"trainer.max_steps={epochs * steps_of_an_epoch} or more, or a lower trainer.max_epochs"
            )


def smaller_sizes(config: DictConfig, spec: ImageSpec) -> list[tuple[int, int]]:
    """The heights and widths of all stages of a configuration's ProgressiveSizes but the last."""
    name = f"{ProgressiveSizes.__module__}.{ProgressiveSizes.__qualname__}"
    nodes = [node for node in (config.callbacks or {}).values() if node and node._target_ == name]
    return [_scaled(spec, fraction) for node in nodes for fraction in node.fractions[:-1]]


def _scaled(spec: ImageSpec, fraction: float) -> tuple[int, int]:
    return _side(spec.height, fraction), _side(spec.width, fraction)


def _side(full: int, fraction: float) -> int:
    return min(max(round(full * fraction / MULTIPLE) * MULTIPLE, MULTIPLE), full)


def _require(network: nn.Module, image: torch.Tensor) -> None:
    """Raise a UserError if the network does not accept an image of this size."""
    weights = next(network.parameters())
    try:
        with evaluating(network), torch.no_grad():
            network(image.to(weights.device, weights.dtype))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"callbacks=[progressive_sizes]: {type(network).__name__} does not accept images of "
            f"{image.shape[2]}×{image.shape[3]}: type larger "
            "callbacks.progressive_sizes.fractions, or a model that accepts any size, such as model=convnet_bn"
        ) from error
