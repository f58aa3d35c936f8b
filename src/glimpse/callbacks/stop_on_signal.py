"""On Ctrl-C or another stop signal, finish the batch, save `last.ckpt` and stop. No step is lost.

A KeyboardInterrupt that the user's own code raises stops a run as well. The checkpoint is then
saved only if the interrupt came after a batch. An interrupted step cannot be saved, so the previous
checkpoint stays.

A trial of a search that lags behind stops in the same way, at the start of an epoch. With
`checkpoints.every_minutes`, `last.ckpt` is also saved within an epoch, at the same points.

Several processes must stop at the same batch, whichever of them received the signal. Synchronising
them at every batch would cost as much as a step of a small network. Instead, they synchronise at
the start of every epoch and about once per second within it.
"""

import math
import signal
import time
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.classifier import ImageClassifier
from glimpse.console import console
from glimpse.errors import Interrupted
from glimpse.lightning_compat import (
    ends_epoch,
    is_after_batch,
    next_batch,
    run_stopped_validation,
    skip_question_of_sigterm,
    validates_next,
)
from glimpse.signals import handle_stops

SECONDS_BETWEEN_LOOKS = 1.0
MOST_BATCHES_BETWEEN_LOOKS = 200
# Batches may become slower from one epoch to the next, with progressive_sizes or after unfreezing.
MOST_BATCHES_BEFORE_FIRST_LOOK = 10  # in an epoch

# What a process was asked to do. If processes differ, the highest value counts.
NOTHING, SAVE, PRUNE, STOP = 0.0, 0.25, 0.5, 1.0


class PrunedError(Exception):
    """The run stopped early because a search asked it to."""


class StopOnSignal(Callback):
    """Turn the first signal into a checkpoint and an `Interrupted`. Later signals have no effect.

    Args:
        checkpoints: The callback that saves the checkpoint.
        every_minutes: The time after which `last.ckpt` is saved within an epoch; None: never.
    """

    sees_chunks = True

    def __init__(self, checkpoints: Checkpoints, *, every_minutes: float | None = None) -> None:
        self.checkpoints = checkpoints
        self._seconds = math.inf if every_minutes is None else 60 * every_minutes
        self._save_is_due = False
        self.received = 0
        self._is_pruned = False
        self._in_validation = False  # whether the checkpoint was saved during a validation
        self._is_over = False  # whether the time limit had passed before that validation
        self._num_batches = 0  # batches since the last look
        self._next_look = 1  # batches until the next look; the same in all processes
        self._looked_at = time.monotonic()

    def _note(self, signal_number: int, _frame: FrameType | None) -> None:
        if not self.received:
            self.received = signal_number

    def prune(self) -> None:
        """Stop before the next epoch. The other processes of the run stop there too."""
        self._is_pruned = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._num_batches += 1
        if trainer.world_size == 1:
            due = self.received != 0 or self._is_time_to_save()
        else:
            due = self._num_batches >= self._next_look
        if due and _can_be_saved(trainer, batch_idx):
            self._stop_if_asked(trainer)
            if self._save_is_due:
                self._save_is_due = False
                self.checkpoints.save_last(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.world_size > 1:  # processes may have different numbers of validation batches
            return
        if trainer.global_step == trainer.max_steps:  # a resume would find no step left, and end
            return
        self._in_validation = True
        self._stop_if_asked(trainer)
        self._in_validation = False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save after a KeyboardInterrupt of another callback, as after Ctrl-C.

        With several processes, nothing is saved.
        """
        if not isinstance(exception, KeyboardInterrupt) or trainer.world_size > 1:
            return
        if is_after_batch(trainer) and _can_be_saved(trainer, next_batch(trainer) - 1):
            console.print("stopping: saving last.ckpt")
            self.checkpoints.save_last(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let Lightning begin a training whose time limit has passed, to repeat the validation."""
        if self._in_validation:
            self._is_over, trainer.should_stop = trainer.should_stop, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers, and repeat an interrupted validation, which Lightning skips.

        Lightning has just installed its own handlers. Under DDP, its SIGTERM handler waits for the
        other processes and never returns. Lightning restores the earlier handlers after the fit.
        """
        handle_stops(self._note)
        skip_question_of_sigterm(trainer)
        if self._in_validation:
            self._in_validation = False
            trainer.should_stop = trainer.should_stop or self._is_over
            run_stopped_validation(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the final evaluation if asked to. A resumed run then evaluates."""
        if self._asked(trainer) == STOP:
            raise Interrupted(self.received or signal.SIGTERM)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once: there is nothing to save. Lightning's handler would wait for the others."""
        handle_stops()

    def state_dict(self) -> dict[str, Any]:
        return {"in_validation": self._in_validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._in_validation = state_dict["in_validation"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before the epoch if asked to; the previous epoch is already saved."""
        asked = self._asked(trainer)
        if asked == PRUNE:
            raise PrunedError
        if asked == STOP:
            raise Interrupted(self.received or signal.SIGTERM)
        self._next_look = min(self._next_look, MOST_BATCHES_BEFORE_FIRST_LOOK)

    def _is_time_to_save(self) -> bool:
        return time.monotonic() - self.checkpoints.saved_at >= self._seconds

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        if self._asked(trainer) == STOP:
            console.print("stopping: saving last.ckpt")
            self.checkpoints.save_last(trainer)
            raise Interrupted(self.received or signal.SIGTERM)

    def _asked(self, trainer: pl.Trainer) -> float:
        """The highest of the requests (NOTHING to STOP) over all processes.

        This also sets whether a save is due and, with several processes, when to look next.
        """
        due = self._is_time_to_save()
        mine = STOP if self.received else PRUNE if self._is_pruned else SAVE if due else NOTHING
        if trainer.world_size == 1:
            self._save_is_due = due
            return mine
        assert isinstance(trainer.lightning_module, ImageClassifier)
        trainer.lightning_module.require_finite_losses()
        device = trainer.strategy.root_device
        if device.type == "cuda":  # otherwise this would measure only the launch of the kernels
            torch.cuda.synchronize(device)
        per_batch = (time.monotonic() - self._looked_at) / max(1, self._num_batches)
        numbers = torch.tensor((mine, per_batch), device=device)
        found = trainer.strategy.reduce(numbers, reduce_op="max")
        assert isinstance(found, Tensor)
        most, slowest = found.tolist()
        self._save_is_due = most >= SAVE
        if self._num_batches:
            self._next_look = _batches_in_a_second(slowest)
        self._num_batches = 0
        self._looked_at = time.monotonic()
        return float(most)


def _can_be_saved(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a checkpoint can be saved after a batch.

    It cannot be saved between the batches of one optimizer step, after the last batch of an epoch
    or of the training, or just before a validation: a resumed run would skip what follows.
    """
    stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    return stepped and not ends_epoch(trainer) and not validates_next(trainer)


def _batches_in_a_second(seconds_per_batch: float) -> int:
    """The number of batches to train until the next look."""
    most = MOST_BATCHES_BETWEEN_LOOKS
    if seconds_per_batch * most <= SECONDS_BETWEEN_LOOKS:
        return most
    return max(1, round(SECONDS_BETWEEN_LOOKS / seconds_per_batch))
