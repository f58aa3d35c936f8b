"""Tables: a row an image, either its pixels or the path of its file, and its label.

Sign Language MNIST is `label,pixel1,…,pixel784`; a table of files is `path,label`, with paths relative
to the table. A fault in a table is named by file and line, before anything is decoded.
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

MOST_CLASSES = 1000  # of a table with fewer images: a larger number is a slip


class CsvTable(ImageDataModule):
    """One table, or one for training and one held out.

    Args:
        train: the table of training images.
        test: the official held-out table; None: a part of `train` is held out.
        label: the column of labels. In a table of pixels a label is a number from 0; in a table of
            files it is any text.
        path: the column of paths; a table without it holds pixels, all other columns in order.
        shape: (C, H, W) of an image of pixels; None: grey and square. Rows hold the channels of a
            pixel side by side.
        class_names: the name of each label; None: the labels themselves.
        source: where the tables are to be had, for the message if they are missing.
        **common: arguments of every dataset.
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
        """Of the training table, whether the archive is packed with its folder or without."""
        return self.tables[0].parent

    def source_files(self) -> Iterable[Path]:
        """The tables, and the files that they name."""
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
        """Only where `data.url` names an archive that holds the tables."""
        if self.url is not None:
            super().download()

    def missing(self) -> str:
        """Which table is not there, and where it is to be had."""
        table = next(table for table in self.tables if not table.is_file())
        origin = f"; get it from {self.source} and put it there" if self.source else ""
        return f"{table}: there is no such table{origin}"

    def read(self) -> Source:
        """Pixels (N, H, W, C) uint8 or paths, with labels."""
        read = [self._labels_and_column(table) for table in self.tables]
        texts = [labels for labels, _ in read]
        names, numbers = self._numbered(texts)
        parts = [
            self._part(table, column, labels)
            for table, (_, column), labels in zip(self.tables, read, numbers, strict=True)
        ]
        return Source(names, *parts)

    def _labels_and_column(self, table: Path) -> tuple[list[tuple[int, str]], int | None]:
        """(line, label) of each row, and the column of paths if there is one."""
        header, rows = _read(table)
        if self.label not in header:
            raise UserError(
                f"{table}: there is no column {self.label!r}: it has {', '.join(header[:4])} …; "
                "type data.label=<column>"
            )
        column = header.index(self.label)
        labels = [(line, row[column]) for line, row in rows]
        for line, label in labels:
            if not label.strip():
                raise UserError(f"{table}, line {line}: the column {self.label!r} is empty")
        if not labels:
            raise UserError(f"{table}: there are no images in it, only a header")
        return labels, header.index(self.path) if self.path in header else None

    def _numbered(
        self, texts: Sequence[Sequence[tuple[int, str]]]
    ) -> tuple[tuple[str, ...], list[np.ndarray[Any, np.dtype[np.int64]]]]:
        """Class names, and the labels as indices into them."""
        if self.class_names is None and not all(t.lstrip("-").isdigit() for _, t in texts[0]):
            names = tuple(sorted({text for _, text in texts[0]}))
        elif self.class_names is None:
            line, highest = max(texts[0], key=lambda row: int(row[1]))
            if int(highest) >= max(MOST_CLASSES, len(texts[0])):
                raise UserError(
                    f"{self.tables[0]}, line {line}: the label {highest} would make as many classes; "
                    f"expected at most {MOST_CLASSES}, or as many as there are images"
                )
            names = tuple(map(str, range(1 + int(highest))))
        else:
            names = tuple(self.class_names)
        index = {name: i for i, name in enumerate(names)}
        # A number is a position where somebody has named the positions.
        by_number = {str(i): i for i in range(len(names))} if self.class_names else {}
        numbers = []
        for table, rows in zip(self.tables, texts, strict=True):
            labels = np.zeros(len(rows), np.int64)
            for row, (line, text) in enumerate(rows):
                number = index.get(text, by_number.get(text))
                if number is None:
                    raise UserError(
                        f"{table}, line {line}: the label {text!r} is none of the "
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
        columns = [i for i, name in enumerate(header) if name != self.label]
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
                f"{width}: type data.shape=[C,H,W]"
            )
        return channels, height, width


def _read(table: Path) -> tuple[list[str], Iterable[tuple[int, list[str]]]]:
    """The header, and (line, cells) of each row.

    Raises:
        UserError: a column twice, or a row that is shorter or longer than the header.
    """
    header = next(_lines(table), (1, []))[1]
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{table}, line 1: the column {name!r} is there twice")
    if len(header) < 2:
        raise UserError(f"{table}, line 1: expected a header such as label,pixel1,pixel2 …")
    return header, _rows(table, len(header))


def _rows(table: Path, num_columns: int) -> Iterable[tuple[int, list[str]]]:
    for line, row in itertools.islice(_lines(table), 1, None):
        if len(row) != num_columns:
            raise UserError(f"{table}, line {line}: {len(row)} cells, the header has {num_columns}")
        yield line, row


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each line that is not blank."""
    with table.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a mark in front
        reader = csv.reader(file)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise UserError(
                f"{table}, after line {reader.line_num}: it is not UTF-8; save it as CSV in UTF-8"
            ) from error
        except csv.Error as error:
            raise UserError(f"{table}, line {reader.line_num}: {error}") from error


def _pixels(
    row: Sequence[str], columns: Sequence[int], header: Sequence[str], where: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A row's pixels; names the first cell that is not a whole number from 0 to 255."""
    cells = [row[i] for i in columns]
    try:
        values = np.array(cells, dtype=np.int64)
    except (ValueError, OverflowError):
        values = np.array([-1])
    if values.min() < 0 or values.max() > 255:
        for i in columns:
            if not (row[i].strip().isdigit() and int(row[i]) <= 255):
                raise UserError(
                    f"{where}: {header[i]} is {row[i]!r}, expected a whole number from 0 to 255"
                )
    return values
