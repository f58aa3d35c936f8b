"""Plain tables. In a file, every row is one line, however long."""

import shutil
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from glimpse.streams import printable

UNLIMITED = 100_000  # characters
FEW_CLASSES = 20  # up to this many classes are all listed


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a header of column names, then the rows."""
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(_literal(name), overflow="fold")
    for row in rows:
        table.add_row(*map(_literal, row))
    Console(width=width()).print(table)


def _literal(cell: str) -> Text:
    return Text(printable(cell))  # Text does not parse markup


def width() -> int:
    """The width of the output in characters: the terminal's, or no limit for a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
