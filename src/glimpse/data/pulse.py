"""Detect a decoding process that hangs, so that the run ends with an error instead of waiting.

This module does not import torch, so that decoding processes start quickly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext

from glimpse.errors import UserError

SILENT_SECONDS = 40.0  # a process that reads no image for this long is suspended or hangs
TICK = 1.0  # seconds between two readings of the pulse


class Pulse:
    """Signs of life of decoding processes, in memory that they share with the run.

    Each process has a counter of the images that it has read. The counter is positive while the
    process works, and negative while it waits for work. The context is the one that starts them.
    """

    def __init__(self, num_workers: int, context: BaseContext) -> None:
        self._counts = context.RawArray("q", num_workers)

    def begin(self, place: int) -> None:
        """In a decoding process: take a place."""
        global _own
        _own = (self, place)

    def set(self, place: int, *, at_work: bool) -> None:
        """In a decoding process: give a sign of life."""
        count = abs(self._counts[place]) + 1
        self._counts[place] = count if at_work else -count

    def read(self) -> list[int]:
        """Return the count of each process."""
        return list(self._counts)


_own: tuple[Pulse, int] | None = None  # the pulse and the place of this process, if it decodes


def still_working() -> None:
    """In a decoding process: note that it has read an image. This has no effect elsewhere."""
    if _own is not None:
        _own[0].set(_own[1], at_work=True)


@contextmanager
def at_work() -> Iterator[None]:
    """In a decoding process: mark it as working in this block. This has no effect elsewhere."""
    still_working()
    try:
        yield
    finally:
        if _own is not None:
            _own[0].set(_own[1], at_work=False)


class Watch:
    """Read a pulse while the run waits. Time in which the run itself is suspended does not count.

    `remedy` is what to type if a process hangs.
    """

    def __init__(self, pulse: Pulse, remedy: str) -> None:
        self._pulse = pulse
        self._remedy = remedy
        self._seen = pulse.read()
        self._silent = [0.0] * len(self._seen)  # seconds, for each process that works
        self._all_silent = 0.0

    def waited(self) -> None:
        """Note that the run has waited for a `TICK` without a result.

        Raises:
            UserError: a process has read nothing for `SILENT_SECONDS`.
        """
        counts = self._pulse.read()
        self._all_silent = 0.0 if counts != self._seen else self._all_silent + TICK
        for place, (now, before) in enumerate(zip(counts, self._seen, strict=True)):
            is_silent = now == before and now > 0
            self._silent[place] = self._silent[place] + TICK if is_silent else 0.0
        self._seen = counts
        if max(self._all_silent, *self._silent) >= SILENT_SECONDS:
            raise UserError(
                f"a decoding process has read no image for {SILENT_SECONDS:g} s: it is suspended, or waits "
                f"for a disk or a network drive; run the same command again, or type {self._remedy}"
            )
