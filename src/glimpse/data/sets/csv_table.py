"""CSV tables with one image per row: its label, and either its pixels or the path of its file.

Sign Language MNIST has the columns `label,pixel1,…,pixel784`. A table of files has the columns
`path,label`, with paths relative to the table. Errors in a table are reported with file and line
before any image is decoded.
"""

import csv
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Files, Part, Source
from glimpse.errors import UserError

MOST_CLASSES = 1000  # in a table with fewer images; a larger label is taken for a mistake


class CsvTable(ImageDataModule):
    """One table, or a training table and a held-out table.

    Args:
        train: Table of training images.
        test: The official held-out table; None: a fraction of `train` is held out.
        label: Column of labels. In a table of pixels, a label is an integer from 0; in a table of
            files, it can be any text.
        path: Column of paths. A table without this column contains pixels: all other columns, in
            order.
        shape: (C, H, W) of an image stored as pixels; None: grey and square. The channels of a
            pixel are adjacent.
        class_names: Name of each label; None: the labels themselves.
        source: Where to get the tables, for the error message if they are missing.
        **common: Arguments of every dataset.
    """

    def __init__(
        self,
        *,
        train: str,
        test: str | None = None,
        label: str = "label",
        path: str = "path",
        shape: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        source: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.tables = [Path(table) for table in (train, test) if table is not None]
        self.label = label
        self.path = path
        self.shape = shape
        self.class_names = class_names
        self.source = source

    @property
    def archive_folder(self) -> Path:
        """The training table's folder, whether or not the archive contains this folder."""
        return self.tables[0].parent

    def source_files(self) -> Iterable[Path]:
        """Return the tables and the files that they list."""
        if not all(table.is_file() for table in self.tables):
            return
        yield from self.tables
        for table in self.tables:
            header, rows = _read(table)
            if self.path in header:
                column = header.index(self.path)
                for line, row in rows:
                    if not row[column].strip():
                        raise UserError(f"{table}, line {line}: the column {self.path!r} is empty")
                    yield table.parent / row[column]

    def download(self) -> None:
        """Download the tables only if `data.url` names an archive that contains them."""
        if self.url is not None:
            super().download()

    def missing(self) -> str:
        """Return the error message, which names the missing table and its source."""
        table = next(table for table in self.tables if not table.is_file())
        origin = f"; download it from {self.source} and put it there" if self.source else ""
        return f"{table}: no such table{origin}"

    def read(self) -> Source:
        """Read pixels (N, H, W, C) uint8 or paths, with labels."""
        read = [self._labels_and_column(table) for table in self.tables]
        texts = [labels for labels, _ in read]
        names, numbers = self._numbered(texts)
        parts = [
            self._part(table, column, labels)
            for table, (_, column), labels in zip(self.tables, read, numbers, strict=True)
        ]
        return Source(names, *parts)

    def column(self, name: str, part: str) -> Sequence[str] | None:
        """Return the cells of a column, without those of unreadable images that were skipped."""
        header, rows = _read(self.tables[0 if part == "train" else 1])
        if name not in header:
            return None
        cells = [row[header.index(name)] for _, row in rows]
        kept = self.kept_rows(part)
        return cells if kept is None else [cells[row] for row in kept]

    def _labels_and_column(self, table: Path) -> tuple[list[tuple[int, str]], int | None]:
        """Return (line, label) of each row, and the column of paths if there is one."""
        header, rows = _read(table)
        if self.label not in header:
            raise UserError(
                f"{table} has no column {self.label!r}, its columns are {', '.join(header[:4])} …: "
                "type data.label=<column>"
            )
        column = header.index(self.label)
        labels = [(line, row[column]) for line, row in rows]
        for line, label in labels:
            if not label.strip():
                raise UserError(f"{table}, line {line}: the column {self.label!r} is empty")
        if not labels:
            raise UserError(f"{table} has a header but no rows; expected one row per image")
        return labels, header.index(self.path) if self.path in header else None

    def _numbered(
        self, texts: Sequence[Sequence[tuple[int, str]]]
    ) -> tuple[tuple[str, ...], list[np.ndarray[Any, np.dtype[np.int64]]]]:
        """Return the class names, and the labels as indices into them."""
        if self.class_names is None and not all(t.lstrip("-").isdigit() for _, t in texts[0]):
            names = tuple(sorted({text for _, text in texts[0]}))
        elif self.class_names is None:
            line, highest = max(texts[0], key=lambda row: int(row[1]))
            if int(highest) >= max(MOST_CLASSES, len(texts[0])):
                raise UserError(
                    f"{self.tables[0]}, line {line}: the label {highest} is too large, expected "
                    f"less than {MOST_CLASSES} or less than the number of images; correct it, or "
                    "type data.class_names=[…]"
                )
            names = tuple(map(str, range(1 + int(highest))))
        else:
            names = tuple(self.class_names)
        index = {name: i for i, name in enumerate(names)}
        # With class names, a number is the index of a name.
        by_number = {str(i): i for i in range(len(names))} if self.class_names else {}
        numbers = []
        for table, rows in zip(self.tables, texts, strict=True):
            labels = np.zeros(len(rows), np.int64)
            for row, (line, text) in enumerate(rows):
                number = index.get(text, by_number.get(text))
                if number is None:
                    raise UserError(
                        f"{table}, line {line}: the label {text!r} is not one of the "
                        f"{len(names)} classes, 0 to {len(names) - 1}"
                    )
                labels[row] = number
            numbers.append(labels)
        return names, numbers

    def _part(
        self, table: Path, path_column: int | None, labels: np.ndarray[Any, np.dtype[np.int64]]
    ) -> Part:
        header, rows = _read(table)
        if path_column is not None:
            return Files([table.parent / row[path_column] for _, row in rows], labels)
        columns = [i for i, name in enumerate(header) if name not in (self.label, self.groups)]
        channels, height, width = self._shape(len(columns), table)
        pixels = np.empty((len(labels), len(columns)), np.uint8)
        for number, (line, row) in enumerate(rows):
            pixels[number] = _pixels(row, columns, header, f"{table}, line {line}")
        return Arrays(pixels.reshape(-1, height, width, channels), labels)

    def _shape(self, num_columns: int, table: Path) -> tuple[int, int, int]:
        side = math.isqrt(num_columns)
        channels, height, width = self.shape or (1, side, side)
        if channels * height * width != num_columns:
            raise UserError(
                f"{table} has {num_columns} columns of pixels, which is not {channels}×{height}×"
                f"{width}: type data.shape=[C,H,W] with the shape of an image"
            )
        return channels, height, width


def _read(table: Path) -> tuple[list[str], Iterable[tuple[int, list[str]]]]:
    """Return the header, and (line, cells) of each row.

    Raises:
        UserError: Two columns have the same name, or a row has more or fewer cells than the header.
    """
    header = next(_lines(table), (1, []))[1]
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{table}, line 1: duplicate column {name!r}; rename one of them")
    if len(header) < 2:
        raise UserError(f"{table}, line 1: expected a header such as label,pixel1,pixel2 …")
    return header, _rows(table, len(header))


def _rows(table: Path, num_columns: int) -> Iterable[tuple[int, list[str]]]:
    for line, row in itertools.islice(_lines(table), 1, None):
        if len(row) != num_columns:
            raise UserError(f"{table}, line {line}: {len(row)} cells, expected {num_columns}")
        yield line, row


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of each line that is not blank."""
    with table.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a byte-order mark
        reader = csv.reader(file)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise UserError(
                f"{table}, after line {reader.line_num}: the text is not UTF-8; save the table as "
                "CSV in UTF-8"
            ) from error
        except csv.Error as error:
            raise UserError(f"{table}, line {reader.line_num}: {error}") from error


def _pixels(
    row: Sequence[str], columns: Sequence[int], header: Sequence[str], where: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the pixels of a row; the error names the first cell that is not from 0 to 255."""
    cells = [row[i] for i in columns]
    try:
        values = np.array(cells, dtype=np.int64)
    except (ValueError, OverflowError):
        values = np.array([-1])
    if values.min() < 0 or values.max() > 255:
        for i in columns:
            if not (row[i].strip().isdigit() and int(row[i]) <= 255):
                raise UserError(
                    f"{where}: {header[i]} is {row[i]!r}, expected an integer from 0 to 255"
                )
    return values
