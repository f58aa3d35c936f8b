"""Where a run prints: one console, quiet in every process but the first."""

import sys

from rich.console import Console

from glimpse.lightning_compat import IS_FIRST_PROCESS

# Lines are never cut when the output goes to a file.
console = Console(
    quiet=not IS_FIRST_PROCESS,
    highlight=False,
    soft_wrap=True,
    width=None if sys.stdout.isatty() else 100,
)
