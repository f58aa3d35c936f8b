"""`callbacks=[ema]`: keep an exponential moving average of the weights for validation and testing.

Source: Polyak and Juditsky 1992, averaged iterates. The growing decay is that of TensorFlow's
ExponentialMovingAverage: min(decay, (1 + t) / (10 + t)) after t optimizer steps. It keeps the
initial weights from dominating the average of a short run. Batch norm's running statistics are
averaged like the weights; integers, such as its count of batches, are copied.

Lightning's EMAWeightAveraging validates the initial weights until its first update (its issue
21724). Here the average exists from the first step. In every checkpoint, `state_dict` holds the
average, and `training_weights` holds the weights that a resumed run continues to train.

Left out: an average that starts late or is updated only every n-th step.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from glimpse.classifier import ImageClassifier
from glimpse.losses import HALVES


class WeightAverage(Callback):
    """Validate, save and test the averaged weights while training the current ones.

    Args:
        decay: The decay of the average per optimizer step, reached after about 9 / (1 - decay)
            steps.
    """

    sees_chunks = True

    def __init__(self, *, decay: float) -> None:
        self.decay = decay
        # By the names of the module's state_dict. Averages of bf16 and fp16 weights are fp32, because
        # they change by less than such a weight can.
        self._average: dict[str, Tensor] = {}
        # The training weights, while the average is in the network.
        self._training: dict[str, Tensor] = {}
        self._step = 0
        self._num_skipped = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the initial weights, or move a checkpoint's average to the device."""
        current = pl_module.state_dict()
        begun = self._average or _copies(current)
        self._average = {name: begun[name].to(_exact(tensor)) for name, tensor in current.items()}
        self._step = trainer.global_step
        assert isinstance(pl_module, ImageClassifier)
        self._num_skipped = pl_module.num_skipped

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self.on_step_ahead(trainer, pl_module)

    def on_step_ahead(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the average after an optimizer step."""
        if trainer.global_step == self._step:  # no optimizer step: gradients accumulate
            return
        self._step = trainer.global_step
        assert isinstance(pl_module, ImageClassifier)
        if pl_module.num_skipped != self._num_skipped:  # the step was undone
            self._num_skipped = pl_module.num_skipped
            return
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        weights = pl_module.state_dict()
        pairs = [(average, weights[name]) for name, average in self._average.items()]
        averages = [_real(a) for a, _ in pairs if _is_averaged(a)]
        current = [_real(c.to(a)) for a, c in pairs if _is_averaged(a)]
        get_ema_multi_avg_fn(decay)(averages, current, 0)  # type: ignore[no-untyped-call]
        for average, value in pairs:
            if not _is_averaged(average):
                average.copy_(value)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._training = _copies(pl_module.state_dict())
        self._put(self._average, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._put(self._training, pl_module)
        self._training = {}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average into the network, so that it is tested if there is no best checkpoint."""
        self._put(self._average, pl_module)

    def _put(self, values: Mapping[str, Tensor], pl_module: pl.LightningModule) -> None:
        """Copy values in place, because the optimizer refers to the parameters."""
        current = pl_module.state_dict()
        for name, value in values.items():
            current[name].copy_(value)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        current = checkpoint["state_dict"]
        checkpoint["training_weights"] = {
            name: self._training.get(name, current[name]) for name in current
        }
        checkpoint["state_dict"] = {
            name: self._average.get(name, current[name]) for name in current
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the saved weights as the average, then restore the training weights, if saved."""
        self._average = _copies(checkpoint["state_dict"])
        if "training_weights" in checkpoint:
            pl_module.load_state_dict(checkpoint["training_weights"])


def _exact(tensor: Tensor) -> Tensor:
    """The tensor in fp32 if it is in half precision, otherwise the tensor itself."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def _is_averaged(tensor: Tensor) -> bool:
    """Whether a tensor is averaged; others, such as counts, are those of the latest step."""
    return tensor.is_floating_point() or tensor.is_complex()


def _real(tensor: Tensor) -> Tensor:
    """The tensor itself, or the real and imaginary parts in it."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
