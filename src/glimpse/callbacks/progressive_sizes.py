"""Train on small images first: most of what a convnet learns early costs a quarter of the time.

Source: Howard 2018, Training ImageNet in 3 hours for $25 (DAWNBench), progressive resizing; Tan and Le
2021, EfficientNetV2, section 4.2. Images are shrunk on the device before they are augmented. Validation
is at the full size throughout: a network answers poorly at a size that it has not been trained at, so
no checkpoint before the last size is taken for the best.
"""

from collections.abc import Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from glimpse.data.module import ImageDataModule
from glimpse.errors import UserError

MULTIPLE = 8  # pixels that a side is rounded to, so that halving by pooling loses little


class ProgressiveSizes(Callback):
    """Sets `training_side` of the data at the start of each epoch.

    Args:
        fractions: of the network's input side, one for each stage; the last is 1.
        until: the share of all epochs after which each stage but the last ends; rising.

    Raises:
        UserError: the stages do not fit together, the run has no end, or images are not square.
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

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The stage is a function of the epoch, so that a resumed run is in the right one."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise UserError(
                "callbacks=[progressive_sizes]: the run has no end; set trainer.max_epochs"
            )
        if data.spec.height != data.spec.width:
            raise UserError(
                f"callbacks=[progressive_sizes]: images are {data.spec.width}×{data.spec.height}: "
                "type data.size=64 to make them square"
            )
        done = trainer.current_epoch / trainer.max_epochs
        stage = sum(done >= share - 1e-9 for share in self.until)
        side = round(data.spec.height * self.fractions[stage] / MULTIPLE) * MULTIPLE
        last = stage == len(self.until)
        data.training_side = None if last else min(max(side, MULTIPLE), data.spec.height)
