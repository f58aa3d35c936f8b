"""`callbacks=[ema]`: an exponential moving average of the weights, which is what is validated and kept.

Source: Polyak and Juditsky 1992, averaged iterates; the growing decay is that of TensorFlow's
ExponentialMovingAverage: min(decay, (1 + t) / (10 + t)) after t optimizer steps, so that a short run
is not an average of its beginning. Batch norm's running statistics are averaged with the weights
they belong to; whole numbers, such as its count of batches, are copied.

Lightning's EMAWeightAveraging validates the initial weights until its first update (its issue 21724);
here the average exists from the first step. In every checkpoint `state_dict` is the average, and
`training_weights` are what a resumed run trains on.

Left out: an average that starts late or moves every n-th step.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage(Callback):
    """Validate, keep and finally test the averaged weights; train on the others.

    Args:
        decay: of the average at each optimizer step, from about 10 / (1 - decay) steps on.
    """

    def __init__(self, *, decay: float) -> None:
        self.decay = decay
        # The average, in the order of the module's state_dict; while it is validated, it is in the
        # network and the training weights are here.
        self._other: list[Tensor] = []
        self._average_in_network = False
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin at the initial weights, or move what a checkpoint held to the device."""
        current = _tensors(pl_module)
        loaded = self._other or [tensor.clone() for tensor in current]
        self._other = [o.to(c.device) for o, c in zip(loaded, current, strict=True)]
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        if trainer.global_step == self._step:  # gradients are accumulated
            return
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        pairs = list(zip(self._other, _tensors(pl_module), strict=True))
        averages, current = zip(*(p for p in pairs if p[0].is_floating_point()), strict=True)
        get_ema_multi_avg_fn(decay)(averages, current, 0)  # type: ignore[no-untyped-call]
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._swap(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where there is no best checkpoint to test, the average is tested."""
        self._swap(pl_module)

    def _swap(self, pl_module: pl.LightningModule) -> None:
        """Exchange the values; the optimizer goes on knowing the parameters."""
        for other, current in zip(self._other, _tensors(pl_module), strict=bool(self._other)):
            kept = current.clone()
            current.copy_(other)
            other.copy_(kept)
        self._average_in_network = not self._average_in_network

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        current = checkpoint["state_dict"]
        other = dict(zip(current, self._other, strict=True))
        average, training = (current, other) if self._average_in_network else (other, current)
        checkpoint |= {"state_dict": average, "training_weights": training}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The average has just been loaded; a run without one begins its average there."""
        self._other = [tensor.clone() for tensor in _tensors(pl_module)]
        if "training_weights" in checkpoint:
            pl_module.load_state_dict(checkpoint["training_weights"])


def _tensors(pl_module: pl.LightningModule) -> list[Tensor]:
    """Parameters and buffers as a checkpoint holds them."""
    return list(pl_module.state_dict().values())
