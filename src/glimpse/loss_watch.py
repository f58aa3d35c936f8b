"""Detect a training loss that is not finite, without making a GPU wait in every step.

On a CPU, every loss is checked at once. On other devices, the losses of `CHECK_EVERY` steps are
collected, then copied to the CPU in the background, and read `CHECK_EVERY` steps later. Up to twice
as many steps may therefore follow the one that failed. The first that failed is still known.
"""

import math

import torch
from torch import Tensor

from glimpse.data.transfer import Arriving, is_queued
from glimpse.distributed.gather import lowest

CHECK_EVERY = 50  # steps

Failed = tuple[int, float]  # the number of a batch in its epoch, from 0, and its loss


class LossWatch:
    """The losses of an epoch.

    Attributes:
        failed: The first batch that is known to have a loss that is not finite; None if all are.
    """

    def __init__(self) -> None:
        self.failed: Failed | None = None
        self._losses: Tensor | None = None  # (CHECK_EVERY,), on the device
        self._batches: list[int] = []  # the numbers of the batches in `_losses`
        self._on_the_way: tuple[list[int], Arriving] | None = None

    def add(self, loss: Tensor, batch_idx: int) -> None:
        """Add the loss () of a batch, without a gradient, and the batch's number in its epoch."""
        if not is_queued(loss.device):
            self._check([batch_idx], [loss.item()])
            return
        if self._losses is None:
            self._losses = loss.new_zeros(CHECK_EVERY)
        self._losses[len(self._batches)] = loss
        self._batches.append(batch_idx)
        if len(self._batches) == CHECK_EVERY:
            self._look()

    def finish(self) -> None:
        """Wait for all losses, and check them."""
        self._look()
        self._look()

    def agree(self, device: torch.device) -> None:
        """Set `failed` to the first batch that failed in any process. All call this together."""
        mine = math.inf if self.failed is None else float(self.failed[0])
        first = lowest(torch.tensor(mine, device=device)).item()
        if first < mine:
            self.failed = int(first), math.nan  # of another process

    def _look(self) -> None:
        """Read the losses on their way to the CPU, and send those that were collected since."""
        before, self._on_the_way = self._on_the_way, None
        if self._losses is not None and self._batches:
            self._on_the_way = self._batches, Arriving(self._losses)
            self._batches = []
        if before is not None:
            self._check(before[0], before[1].read())

    def _check(self, batches: list[int], losses: list[float]) -> None:
        failed = (both for both in zip(batches, losses, strict=False) if not math.isfinite(both[1]))
        self.failed = self.failed or next(failed, None)
