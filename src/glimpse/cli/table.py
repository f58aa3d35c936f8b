"""A table in the terminal: plain columns, and nothing cut where the output goes to a file."""

import shutil
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below the names of their columns."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # brackets are no markup
    Console(width=width()).print(table)


def width() -> int:
    """Of the terminal, in letters."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
