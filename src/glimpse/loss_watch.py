"""Detect a training loss that is not finite, without making a GPU wait in every step.

On a CPU, every loss is checked at once. On other devices, the losses of `CHECK_EVERY` steps are
collected, then copied to the CPU in the background, and read `CHECK_EVERY` steps later. Up to twice
as many steps may therefore follow the one that failed. The error still names the step that failed.
"""

import math

from torch import Tensor

from glimpse.data.transfer import Arriving, is_queued

CHECK_EVERY = 50  # steps

Failed = tuple[int, float]  # the number of a batch in its epoch, from 0, and its loss


class LossWatch:
    """The losses of an epoch that have not been checked yet."""

    def __init__(self) -> None:
        self._losses: Tensor | None = None  # (CHECK_EVERY,), on the device
        self._batches: list[int] = []  # the numbers of the batches in `_losses`
        self._on_the_way: tuple[list[int], Arriving] | None = None

    def add(self, loss: Tensor, batch_idx: int) -> Failed | None:
        """Add the loss of a batch; return the first that is known not to be finite.

        Args:
            loss: (), on any device, without a gradient.
            batch_idx: The number of the batch in its epoch, from 0.
        """
        if not is_queued(loss.device):
            value = loss.item()
            return None if math.isfinite(value) else (batch_idx, value)
        if self._losses is None:
            self._losses = loss.new_zeros(CHECK_EVERY)
        self._losses[len(self._batches)] = loss
        self._batches.append(batch_idx)
        if len(self._batches) < CHECK_EVERY:
            return None
        return self._look()

    def finish(self) -> Failed | None:
        """Wait for all losses; return the first that is not finite."""
        return self._look() or self._look()

    def _look(self) -> Failed | None:
        """Read the losses on their way to the CPU, and send those that were collected since."""
        before, self._on_the_way = self._on_the_way, None
        if self._losses is not None and self._batches:
            self._on_the_way = self._batches, Arriving(self._losses)
            self._batches = []
        return before and _first_failed(before[0], before[1].read())


def _first_failed(batches: list[int], losses: list[float]) -> Failed | None:
    failed = (found for found in zip(batches, losses, strict=False) if not math.isfinite(found[1]))
    return next(failed, None)
