"""The time that a training will still take: its pace so far, and what its remaining steps cost.

The steps of one epoch may cost more than those of another. A callback that causes this has a method
`relative_cost`.
"""

import time
from typing import Protocol, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer


@runtime_checkable
class Uneven(Protocol):
    """A callback with which the steps of some epochs cost less than those of others."""

    def relative_cost(self, epoch: int) -> float:
        """What a step of an epoch costs, in proportion to a step of the last epoch.

        Args:
            epoch: The number of the epoch, from 0.
        """


class TimeLeft:
    """Estimates the time left, from the moment at which it is built.

    Args:
        trainer: The trainer, whose loop is about to train a batch.
        batch_idx: The number of that batch in its epoch, from 0.
    """

    def __init__(self, trainer: pl.Trainer, batch_idx: int) -> None:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._trainer = trainer
        self._uneven = [callback for callback in callbacks if isinstance(callback, Uneven)]
        self._timers = [callback for callback in callbacks if isinstance(callback, Timer)]
        self._begun = time.perf_counter()
        self._before = self._cost_until(trainer.current_epoch, batch_idx)

    def seconds(self, num_batches_done: int) -> float | None:
        """The seconds left, with validation. None if unknown.

        Args:
            num_batches_done: The number of batches of this epoch that have been trained.
        """
        done = self._cost_until(self._trainer.current_epoch, num_batches_done)
        ends = [
            (self._cost_until(*end) - done) * self._pace(done)
            for end in self._ends()
            if done > self._before
        ]
        ends += [left for timer in self._timers if (left := timer.time_remaining()) is not None]
        return max(0.0, min(ends)) if ends else None

    def _pace(self, done: float) -> float:
        return (time.perf_counter() - self._begun) / (done - self._before)

    def _ends(self) -> list[tuple[int, int]]:
        """The epoch and the batch at which the training ends at the latest."""
        trainer = self._trainer
        ends = []
        if (trainer.max_epochs or 0) > 0:
            ends.append((int(trainer.max_epochs or 0), 0))
        if trainer.max_steps > 0:
            together = trainer.accumulate_grad_batches
            steps_per_epoch = -(-int(trainer.num_training_batches) // together)
            epochs, steps = divmod(trainer.max_steps, steps_per_epoch)
            ends.append((epochs, steps * together))
        return ends

    def _cost_until(self, epoch: int, num_batches: int) -> float:
        """The cost of all epochs before one, and of the first batches in it."""
        before = sum(map(self._cost, range(epoch))) if self._uneven else float(epoch)
        return before * int(self._trainer.num_training_batches) + self._cost(epoch) * num_batches

    def _cost(self, epoch: int) -> float:
        cost = 1.0
        for callback in self._uneven:
            cost *= callback.relative_cost(epoch)
        return cost
