"""The console that a run prints to. It is quiet in every process except the first."""

import sys

from rich.console import Console

from glimpse.lightning_compat import IS_FIRST_PROCESS

# Lines are not truncated when the output goes to a file.
console = Console(
    quiet=not IS_FIRST_PROCESS,
    highlight=False,
    soft_wrap=True,
    width=None if sys.stdout.isatty() else 100,
)
