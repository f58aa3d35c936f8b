"""Ctrl-C and SIGTERM in training: finish the batch, save `last.ckpt`, stop; nothing is lost.

Several processes must stop at the same batch, wherever the signal arrived. Asking all of them at each
batch would cost as much as a small network's step: they ask each other at the start of every epoch
and about once a second within it.
"""

import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.console import console
from glimpse.errors import Interrupted
from glimpse.lightning_compat import run_stopped_validation

SECONDS_BETWEEN_LOOKS = 1.0
MOST_BATCHES_BETWEEN_LOOKS = 200
# An epoch's batches may take longer than the former one's: with progressive_sizes, or once unfrozen.
MOST_BATCHES_BEFORE_FIRST_LOOK = 10  # of an epoch


class StopOnSignal(Callback):
    """Turn the first signal into a checkpoint and an `Interrupted`; later ones change nothing.

    Args:
        checkpoints: which saves.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.received = 0
        self._in_validation = False  # whether the checkpoint was saved in the middle of one
        self._num_batches = 0  # since the last look
        self._next_look = 1  # after so many batches; the same in all processes
        self._looked_at = time.monotonic()

    def _note(self, signal_number: int, _frame: FrameType | None) -> None:
        if not self.received:
            self.received = signal_number

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # Not between the batches of one optimizer step, whose gradients no checkpoint holds; nor
        # after the last batch of an epoch, to which its validation belongs.
        self._num_batches += 1
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        due = trainer.world_size == 1 or self._num_batches >= self._next_look
        if stepped and due and not trainer.is_last_batch:
            self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.world_size > 1:  # processes may have different numbers of these batches
            return
        self._in_validation = True
        self._stop_if_asked(trainer)
        self._in_validation = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, and make up for a validation that was stopped: Lightning would leave it out.

        Lightning has set its own handlers just before; under DDP its SIGTERM handler waits for the
        other processes and never returns. It restores the former handlers at the end of the fit.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._note)
            signal.signal(signal.SIGTERM, self._note)
        if self._in_validation:
            self._in_validation = False
            run_stopped_validation(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"in_validation": self._in_validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._in_validation = state_dict["in_validation"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The former epoch is saved already."""
        if self._asked(trainer):
            raise Interrupted(self.received or signal.SIGTERM)
        self._next_look = min(self._next_look, MOST_BATCHES_BEFORE_FIRST_LOOK)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        if self._asked(trainer):
            console.print("stopping: saving last.ckpt")
            self.checkpoints.save_last(trainer)
            raise Interrupted(self.received or signal.SIGTERM)

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether any process was asked to stop; in a run of several, all agree when to look again."""
        if trainer.world_size == 1:
            return bool(self.received)
        device = trainer.strategy.root_device
        if device.type == "cuda":  # or the time would be that of launching kernels
            torch.cuda.synchronize(device)
        per_batch = (time.monotonic() - self._looked_at) / max(1, self._num_batches)
        mine = torch.tensor((float(bool(self.received)), per_batch), device=device)
        found = trainer.strategy.reduce(mine, reduce_op="max")
        assert isinstance(found, Tensor)
        asked, slowest = found.tolist()
        if self._num_batches:
            self._next_look = _batches_in_a_second(slowest)
        self._num_batches = 0
        self._looked_at = time.monotonic()
        return bool(asked)


def _batches_in_a_second(seconds_per_batch: float) -> int:
    """How many to train until the next look."""
    most = MOST_BATCHES_BETWEEN_LOOKS
    if seconds_per_batch * most <= SECONDS_BETWEEN_LOOKS:
        return most
    return max(1, round(SECONDS_BETWEEN_LOOKS / seconds_per_batch))
