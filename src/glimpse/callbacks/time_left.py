"""The time that a training will still take: its pace so far, and what its remaining steps cost.

The steps of one epoch may cost more than those of another. A callback that causes this has a method
`relative_cost`. Validation costs the same in each epoch, so its time is measured separately.
"""

import time
from typing import Protocol, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer

from glimpse.lightning_compat import callbacks_of


def steps_of_an_epoch(trainer: pl.Trainer) -> int:
    """The number of optimizer steps in an epoch of a training that has begun."""
    return -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)


@runtime_checkable
class Uneven(Protocol):
    """A callback with which the steps of some epochs cost less than those of others."""

    def relative_cost(self, epoch: int) -> float:
        """What a step of an epoch costs, in proportion to a step of the last; they count from 0."""


class TimeLeft:
    """Estimates the time left, from the moment at which it is built.

    Args:
        trainer: The trainer, whose loop is about to train a batch.
        batch_idx: The number of that batch in its epoch, from 0.
    """

    def __init__(self, trainer: pl.Trainer, batch_idx: int) -> None:
        callbacks = callbacks_of(trainer)
        self._trainer = trainer
        self._uneven = [callback for callback in callbacks if isinstance(callback, Uneven)]
        self._timers = [callback for callback in callbacks if isinstance(callback, Timer)]
        self._begun = time.perf_counter()
        self._before = trainer.current_epoch, batch_idx
        self._validating = 0.0  # seconds of all validations so far
        self._validation_begun: float | None = None

    def begin_validation(self) -> None:
        """Note that training pauses for a validation."""
        self._validation_begun = time.perf_counter()

    def end_validation(self) -> None:
        """Note that the validation has ended."""
        if self._validation_begun is not None:
            self._validating += time.perf_counter() - self._validation_begun
            self._validation_begun = None

    def seconds(self, num_batches_done: int) -> float | None:
        """The seconds left after this many batches of the epoch, with validation; None if unknown."""
        now = self._trainer.current_epoch, num_batches_done
        cost_done = self._cost_until(*now) - self._cost_until(*self._before)
        batches_done = self._batches_until(*now) - self._batches_until(*self._before)
        ends = []
        if batches_done > 0:
            training = time.perf_counter() - self._begun - self._validating
            for end in self._ends():
                cost_left = self._cost_until(*end) - self._cost_until(*now)
                batches_left = self._batches_until(*end) - self._batches_until(*now)
                ends.append(
                    training * cost_left / cost_done
                    + self._validating * batches_left / batches_done
                )
        ends += [left for timer in self._timers if (left := timer.time_remaining()) is not None]
        return max(0.0, min(ends)) if ends else None

    def _ends(self) -> list[tuple[int, int]]:
        """The epoch and the batch at which the training ends at the latest."""
        trainer = self._trainer
        ends = []
        if (trainer.max_epochs or 0) > 0:
            ends.append((int(trainer.max_epochs or 0), 0))
        if trainer.max_steps > 0:
            epochs, steps = divmod(trainer.max_steps, steps_of_an_epoch(trainer))
            ends.append((epochs, steps * trainer.accumulate_grad_batches))
        return ends

    def _cost_until(self, epoch: int, num_batches: int) -> float:
        """The cost of all epochs before one, and of the first batches in it."""
        before = sum(map(self._cost, range(epoch))) if self._uneven else float(epoch)
        return before * int(self._trainer.num_training_batches) + self._cost(epoch) * num_batches

    def _batches_until(self, epoch: int, num_batches: int) -> int:
        return epoch * int(self._trainer.num_training_batches) + num_batches

    def _cost(self, epoch: int) -> float:
        cost = 1.0
        for callback in self._uneven:
            cost *= callback.relative_cost(epoch)
        return cost
