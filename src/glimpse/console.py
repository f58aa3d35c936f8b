"""Where a run prints: one console, quiet in every process but the first."""

import sys

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

IS_FIRST_PROCESS = (
    getattr(rank_zero_only, "rank", 0) == 0
)  # Lightning reads it from the environment

# Lines are never cut when the output goes to a file.
console = Console(
    quiet=not IS_FIRST_PROCESS,
    highlight=False,
    soft_wrap=True,
    width=None if sys.stdout.isatty() else 100,
)
