"""The console that a run prints to. It is quiet in every process except the first."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from glimpse.lightning_compat import IS_FIRST_PROCESS
from glimpse.streams import printable


class _PlainConsole(Console):
    """A console that prints text literally, without markup or escape sequences."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(
            *(printable(o, kept="\n") if isinstance(o, str) else o for o in objects), **options
        )

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Print nothing inside the block."""
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before


# Lines are not truncated when the output goes to a file.
console = _PlainConsole(
    quiet=not IS_FIRST_PROCESS,
    highlight=False,
    markup=False,
    emoji=False,
    soft_wrap=True,
    width=None if sys.stdout.isatty() else 100,
)
