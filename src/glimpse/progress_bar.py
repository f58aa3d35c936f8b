"""The progress of a long pass on stderr: a bar on a terminal, or one line per minute in a file.

Every pass that may take minutes uses this, such as decoding or a download. Left out: the progress of
a training (callbacks/progress.py).

Import nothing heavy: decoding processes import this.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from tqdm import tqdm

from glimpse.text import duration, plural

LINE_SECONDS = 60.0  # between lines when no bar can be drawn
MEGABYTE = 10**6
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")
_Sized = TypeVar("_Sized", bound=Sized)


def progress_bar(
    what: str, total: int | None, *, unit: str, vanishes: bool = False, shown: bool = True
) -> Any:
    """A bar with `update(number)`, `reset()`, `close()` and `total`, as of tqdm; use it with `with`.

    Args:
        what: What is being done, such as "decoding".
        total: The number of units; None if it is unknown.
        unit: One of them, such as "image". "B" counts bytes.
        vanishes: Whether the bar appears only after a second, and vanishes at the end.
        shown: Whether anything is shown.
    """
    if not shown:
        return tqdm(disable=True)
    if not sys.stderr.isatty():
        return _Lines(what, total, unit=unit)
    options = {"delay": 1, "leave": False} if vanishes else {}
    return tqdm(desc=what, total=total, unit=unit, unit_scale=unit == "B", **options)


def tracked(
    items: Iterable[_Item],
    what: str,
    total: int | None,
    *,
    unit: str,
    vanishes: bool = False,
    size: Callable[[_Item], int] = lambda _: 1,
) -> Iterator[_Item]:
    """Yield the items, such as batches, and show in a bar how many units have been done.

    Each item has `size(item)` units. The other arguments are those of `progress_bar`.
    """
    with progress_bar(what, total, unit=unit, vanishes=vanishes) as bar:
        for item in items:
            yield item
            bar.update(size(item))


def without_bars() -> AbstractContextManager[None]:
    """Take the bars away from the terminal while a block prints to it."""
    hidden: AbstractContextManager[None] = tqdm.external_write_mode(file=sys.stderr)
    return hidden


def counted(forward: Callable[[_Sized], _Found], bar: Any) -> Callable[[_Sized], _Found]:
    """Return a function that does the same with a batch, and counts its images on a bar."""

    def counting(images: _Sized) -> _Found:
        found = forward(images)
        bar.update(len(images))
        return found

    return counting


class _Lines:
    """Prints a line when `LINE_SECONDS` have passed since the last."""

    def __init__(self, what: str, total: int | None, *, unit: str) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.done = 0
        self._begun = time.perf_counter()
        self._next_line = self._begun + LINE_SECONDS

    def update(self, number: int = 1) -> None:
        self.done += number
        now = time.perf_counter()
        if now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            print(self._line(now - self._begun), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        scale, unit = (MEGABYTE, " MB") if self.unit == "B" else (1, "")
        done = f"{self.done // scale:,}"
        if not self.total:
            return f"{self.what}: {f'{done}{unit}' if unit else plural(self.done, self.unit)}"
        total = f"{self.total // scale:,}{unit}" if unit else plural(self.total, self.unit)
        left = ""
        if 0 < self.done <= self.total:
            left = f", {duration(seconds * (self.total - self.done) / self.done)} left"
        return f"{self.what}: {done} of {total}{left}"

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
