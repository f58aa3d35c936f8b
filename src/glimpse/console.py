"""Where a run prints: one console, quiet in every process but the first."""

import logging
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


def quiet_lightning() -> None:
    """What it says of devices and precision, the run says in a line of its own."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
