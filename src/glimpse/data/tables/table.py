"""Tables of text in any common form, read strictly: every fault is named by file and line.

The delimiter is a comma, a semicolon, a tab or a bar. It is detected, or taken from Excel's `sep=;`
line. The text is UTF-8 or, with a byte-order mark, UTF-16. Spaces around cells are removed. Blank
lines are skipped, and so are columns without a name, such as pandas' row numbers. A table without a
header has columns 1, 2, …. The first line is a header if it has no number and no file name, or if
its numbers count up from 0 or 1, or if it has a usual name such as label.

Left out: other encodings, quotes other than ", and compressed tables.
"""

import codecs
import csv
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from glimpse.console import console
from glimpse.data.formats import readable_endings
from glimpse.errors import UserError
from glimpse.files import special_kind
from glimpse.text import as_utf8, class_name, plural, some

DELIMITERS = ",;\t|"
# Usual names of columns, from which columns and headers are detected.
PATHS = (
    "path", "paths", "file", "files", "filename", "file_name", "filepath", "file_path", "image", "images",
    "image_path", "image_name", "image_id", "img", "img_path", "id", "name",
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "classes", "class_name", "class_id", "category", "target", "y", "breed",
    "species", "diagnosis", "emotion",
)  # fmt: skip
UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)*(_level_\d+)?)?")  # as pandas writes and reads them
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LONGEST = 40  # characters of a cell that a message shows
LARGE = 50_000_000  # bytes of a table that takes a while to read
NUM_QUICK = 1000  # rows that are read before a message says so; `sample` reads fewer
_reader = partial(csv.reader, skipinitialspace=True)  # a quote may follow a space: a, "b, c"
# The first bytes of files that are not tables of text, the kind of file, and what to do.
OTHER_KINDS = (
    (b"\x1f\x8b", "compressed by gzip", "type gunzip -k {path}"),
    (b"BZh", "compressed by bzip2", "type bunzip2 -k {path}"),
    (b"\xfd7zXZ", "compressed by xz", "type unxz -k {path}"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "type unzstd {path}"),
    (b"PK\x03\x04", "an Excel workbook or another zip archive", "save its sheet as CSV in UTF-8, or unzip it"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save its sheet as CSV in UTF-8"),
    (b"PAR1", "a parquet file", "type data=huggingface data.name={path}"),
    (b"ARROW1", "an Arrow file", "save the table as CSV"),
    (b"\x89HDF", "an HDF5 file", "save the table as CSV"),
    (b"\x93NUMPY", "a NumPy array", "save the table as CSV"),
    (b"%PDF", "a PDF file", "save the table as CSV"),
    (b"SQLite format", "a database of SQLite", "save the table as CSV"),
    (b"{", "JSON", "save the table as CSV"),
    (b"[", "JSON", "save the table as CSV"),
    (b"<", "HTML or XML, perhaps a page that was saved in place of the file", "download the table itself"),
)  # fmt: skip


def shown(cell: str) -> str:
    """Return a cell as a message shows it, shortened."""
    if len(cell) <= LONGEST:
        return repr(cell)
    return f"{cell[:LONGEST]!r}… ({len(cell):,} characters)"


class Table:
    """A table in a file.

    `header` has the names of all columns, in order. `columns` leaves out those without a name.

    Raises:
        UserError: the file is not a table with two columns or more, or two columns share a name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._has_said = False
        self._left_out: set[int] = set()
        kind = special_kind(os.stat(path).st_mode)
        if kind is not None:
            raise UserError(f"{path} is {kind}, expected a table: type the name of a file")
        with path.open("rb") as file:
            start = file.read(1024)
        # The mark of UTF-32 begins with that of UTF-16.
        is_utf_16 = (
            start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            and start[:4] != codecs.BOM_UTF32_LE
        )
        self._encoding = "utf-16" if is_utf_16 else "utf-8-sig"  # Excel writes a byte-order mark
        self._require_text(start)
        csv.field_size_limit(sys.maxsize)  # so that a long cell is named by its column
        self._delimiter, self._num_skipped = self._find_delimiter()
        first = next(self._lines(), (1, []))[1]
        self.has_header = _is_header(first)
        self.header = (
            [class_name(name) for name in first]
            if self.has_header
            else [str(number) for number in range(1, len(first) + 1)]
        )
        self._places = {name: place for place, name in enumerate(self.header)}
        times = Counter(self.header)
        for name in self.columns:
            if times[name] > 1:
                raise UserError(
                    f"{path}, line 1: duplicate column {shown(name)}; rename one of them"
                )
        if len(first) == 1 and first[0].lower() in PATHS:
            raise UserError(
                f"{path} has only the column {shown(first[0])}, expected one of labels too: add it, or remove "
                "the table from data.test if the labels are secret"
            )
        if len(self.header) < 2:
            raise UserError(
                f"{path}, line 1: expected a header such as label,pixel1,pixel2 … or path,label, found "
                f"{shown(first[0]) if first else 'nothing'}: write commas, semicolons or tabs between the "
                "cells, and no line before the header"
            )

    @cached_property
    def columns(self) -> list[str]:
        """The columns that have a name."""
        return [name for name in self.header if not UNNAMED.fullmatch(name)]

    @property
    def num_unnamed(self) -> int:
        """The number of columns without a name."""
        return len(self.header) - len(self.columns)

    def place(self, line: int) -> str:
        """Return a description of a line's place."""
        return f"{self.path}, line {line}"

    def index(self, column: str) -> int:
        """Return the position of a column."""
        return self._places[column]

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, cells) of each row.

        Raises:
            UserError: a row has more or fewer cells than the header, or cannot be read.
        """
        lines = self._lines()
        if self.has_header:
            next(lines, None)
        width = len(self.header)
        for number, (line, row) in enumerate(lines):
            if number == NUM_QUICK:
                self._say_once_if_large()
            if len(row) > width and not any(row[width:]):  # delimiters at the end
                row = row[:width]
            if line in self._left_out:
                continue
            if len(row) != width:
                cells = plural(len(row), "cell")
                raise UserError(f"{self.place(line)}: {cells}, expected {width}: correct the line")
            yield line, row

    @property
    def leaves_out(self) -> bool:
        """Whether rows are left out."""
        return bool(self._left_out)

    def leave_out(self, lines: Iterable[int]) -> None:
        """Leave out the rows on these lines from now on."""
        self._left_out.update(lines)

    def sample(self, num: int = 50) -> list[list[str]]:
        """Return the cells of the first rows."""
        return [row for _, row in islice(self.rows(), num)]

    def _say_once_if_large(self) -> None:
        size = self.path.stat().st_size
        if size >= LARGE and not self._has_said:
            self._has_said = True
            console.print(f"reading {as_utf8(self.path.name)}, {size / 1e6:,.0f} MB")

    def _require_text(self, start: bytes) -> None:
        begin = start.removeprefix(codecs.BOM_UTF8).lstrip()
        for magic, what, remedy in OTHER_KINDS:
            if begin.startswith(magic):
                raise UserError(
                    f"{self.path} is {what}, expected a table of text (CSV): "
                    f"{remedy.format(path=self.path)}"
                )
        if b"\0" in start and self._encoding != "utf-16":
            raise UserError(
                f"{self.path} contains zero bytes, expected text in UTF-8 (or UTF-16 with a byte-order "
                "mark): save the table as CSV in UTF-8"
            )

    def _find_delimiter(self) -> tuple[str, int]:
        """Return the delimiter, and the number of lines before the header."""
        with self.path.open(newline="", encoding=self._encoding) as file:
            try:
                text = list(islice(file, 20))
            except UnicodeDecodeError as error:
                raise self._not_text() from error
        if text and (said := re.fullmatch(r"sep=(.)\s*", text[0])):
            return said[1], 1
        lines = [line for line in text if line.strip()][:2]

        def widths(delimiter: str) -> tuple[bool, int, int]:
            rows = list(_reader(lines, delimiter=delimiter))
            found = [len(row) for row in rows]
            named = sum(
                cell.strip().lower() in (*PATHS, *LABELS) for row in rows[:1] for cell in row
            )
            return len(set(found)) == 1 and found[0] > 1, named, max(found, default=0)

        return max(DELIMITERS, key=widths), 0  # of those with usual names, with most columns

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (line, cells) of each line that is not blank, the header included."""
        with self.path.open(newline="", encoding=self._encoding) as file:
            for _ in range(self._num_skipped):
                next(file)
            reader = _reader(file, delimiter=self._delimiter, strict=True)
            line = 1 + self._num_skipped  # where a row begins, which may have several lines
            try:
                for row in reader:
                    cells = [cell.strip() for cell in row]
                    has_lines = reader.line_num + self._num_skipped > line
                    if has_lines and _swallows_rows(cells, self._delimiter):
                        raise UserError(
                            f"{self.place(line)}: a cell of this row contains further rows, as if there were a "
                            'stray quote (") in it: remove the quote'
                        )
                    if any(cells):
                        yield line, cells
                    line = reader.line_num + self._num_skipped + 1
            except UnicodeDecodeError as error:
                raise self._not_text() from error
            except csv.Error as error:
                reason = str(error)
                if "unexpected end of data" in reason:
                    reason = 'a cell begins with a quote (") that is never closed'
                raise UserError(f"{self.place(line)}: {reason}; correct the line") from error

    def _not_text(self) -> UserError:
        where = ""
        if self._encoding != "utf-16":
            with self.path.open("rb") as file:
                line, part = next((n, part) for n, row in enumerate(file, 1) if (part := _odd(row)))
            where = f", line {line}: {as_utf8(part.decode('utf-8', 'surrogateescape'))}"
        return UserError(
            f"{self.path}{where}: the text is not UTF-8; save the table as CSV in UTF-8"
        )


def _swallows_rows(row: Sequence[str], delimiter: str) -> bool:
    """Whether a line within a cell looks like a row; prose has spaces after its commas."""
    lines = (line for cell in row for line in cell.split("\n")[1:])
    rows = (line.split(delimiter) for line in lines)
    return any(
        len(cells) == len(row) and not any(cell.startswith(" ") for cell in cells[1:])
        for cells in rows
    )


def _odd(line: bytes) -> bytes:
    """Return the part of a line around bytes that are not UTF-8; empty if there are none."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return line[max(0, error.start - 20) : error.start + 20].strip()
    return b""


def _is_header(first: Sequence[str]) -> bool:
    """Whether the cells of the first line are names, not data."""
    names = [cell.lower() for cell in first if not UNNAMED.fullmatch(cell)]
    if any(name.endswith(readable_endings()) for name in names):
        return False
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    if not numbers:
        return True
    is_usual = any(name in (*PATHS, *LABELS) for name in names) and len(set(names)) == len(names)
    count = len(numbers)
    counts_up = count > 1 and any(
        numbers == [str(number) for number in range(start, start + count)] for start in (0, 1)
    )
    return is_usual or counts_up


def one_of(names: Sequence[str], most: int = 6) -> str:
    """Return the names of columns as text, at most a few."""
    return some([name[:LONGEST] for name in names], most)
