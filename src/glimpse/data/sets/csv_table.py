"""Tables with one image per row: its label, and either its pixels or the path of its file.

Sign Language MNIST has the columns `label,pixel1,…,pixel784`. A table of files has the columns
`path,label`, with paths relative to the table. Columns of other names are found where there is no
doubt (columns.py). Errors in a table are reported with file and line before any image is decoded.
"""

import math
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from glimpse.config.places import wrong_place
from glimpse.data.columns import Columns, find_columns, numbers_in, one_hot_value
from glimpse.data.formats import readable_endings
from glimpse.data.labels import class_names_of, may_be_missing
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Files, Part, Source
from glimpse.data.splits import split_of
from glimpse.data.table import Table, one_of, shown
from glimpse.errors import UserError
from glimpse.text import as_utf8, class_name

_VALUES = {
    str(value): value for value in range(256)
}  # of pixels, as they are nearly always written
_VALUE = re.compile(r"0*(\d{1,3})(\.0*)?", re.ASCII)


class CsvTable(ImageDataModule):
    """One table, or a training table with a validation table, a test table or both.

    Args:
        train: Table of training images.
        val: The official held-out table, for validation; None: a fraction of `train` is held out.
        test: Table of test images, which choose nothing.
        label: Column of labels, or a list of columns that hold 1 for the class of an image and 0 for
            the others; None: found.
        path: Column of paths; None: found. A table without such a column contains pixels: all other
            columns, in order.
        folder: Folder of the files, relative to the folder of the table.
        suffix: Ending that the cells of `path` lack.
        split: Column that says of each row whether it is for training, validation or test.
        shape: (C, H, W) of an image stored as pixels; None: grey and square. The channels of a
            pixel are adjacent.
        class_names: Name of each label; None: the labels that occur.
        num_classes: Number of classes, of which some may not occur: the labels are 0 to this minus 1.
        source: Where to get the tables, for the error message if they are missing.
        **common: Arguments of every dataset.
    """

    version: ClassVar[int] = 4

    def __init__(
        self,
        *,
        train: str,
        val: str | None = None,
        test: str | None = None,
        label: str | int | Sequence[str] | None = None,
        path: str | int | None = None,
        folder: str | None = None,
        suffix: str | None = None,
        split: str | int | None = None,
        shape: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        num_classes: int | None = None,
        source: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        given = {"train": train, "val": val, "test": test}
        self._splits_of_tables = [part for part, table in given.items() if table is not None]
        self.tables = [Path(os.path.expanduser(table)) for table in given.values() if table]
        self.label = str(label) if isinstance(label, int) else label
        self.path = _text(path)
        self.folder = Path(os.path.expanduser(folder or ""))
        is_bare = suffix is not None and f".{suffix.lower()}" in readable_endings()
        self.suffix = f".{suffix}" if is_bare else suffix or ""
        self.split = _text(split)
        self.shape = shape
        self.class_names = class_names
        self.num_classes = num_classes
        self.source = source
        for key, table in {"val": val, "test": test}.items():
            if split is not None and table is not None:
                raise UserError(
                    f"data.split and data.{key} both give the splits: remove one of them"
                )
        if class_names is not None and num_classes is not None:
            raise UserError("data.num_classes and data.class_names exclude each other: remove one")

    # Files --------------------------------------------------------------------------------------

    @property
    def archive_folder(self) -> Path:
        """The training table's folder, whether or not the archive contains this folder."""
        return self.tables[0].parent

    def source_files(self) -> Iterable[Path | str]:
        """Return the tables and the files that they list."""
        if not all(table.exists() for table in self.tables):
            return
        yield from self.tables
        if self.columns.path is not None:
            for table in self._tables:
                for line, row in table.rows():
                    path = self._location(table, line, row)
                    if not self.skip_unreadable or os.path.exists(path):
                        yield path

    def download(self) -> None:
        """Download the tables only if `data.url` names an archive that contains them."""
        if self.url is not None:
            super().download()

    def missing(self) -> str:
        """Return the error message, which names the missing table and its source."""
        named = zip(self._splits_of_tables, self.tables, strict=True)
        split, table = next((split, table) for split, table in named if not table.is_file())
        wrong = wrong_place(f"data.{split}", str(table), source=self.source)
        return wrong or f"{table} is not a file, expected a table"

    def remarks(self) -> list[str]:
        """Say which columns were found without being named, and which files are listed twice."""
        doubtful = [name for name in self.contents.class_names if may_be_missing(name)]
        missing = [f"the class {name} may stand for missing labels" for name in doubtful]
        return [*self.columns.remarks, *missing, *self._repeats()]

    def _repeats(self) -> Iterator[str]:
        """Yield how many files are in two splits, and how many rows name a file again."""
        if self.columns.path is None:
            return
        first: dict[str, str] = {}  # the split of each file
        shared, num_again = Counter[tuple[str, str]](), 0
        for table, name in zip(self._tables, self._splits_of_tables, strict=True):
            index = table.index(self.columns.path)
            for (_, row), part in zip(table.rows(), self._splits(table), strict=True):
                split = name if self.split is None else part
                before = first.setdefault(os.path.normpath(self._path(table, row[index])), split)
                if before != split:
                    shared[split, before] += 1
                else:
                    num_again += 1
        num_again -= len(first)
        for (split, before), number in shared.items():
            yield f"{number:,} image{'s' * (number > 1)} of {split} also in {before}"
        if num_again and self.split is None and self.groups is None:
            column = self.columns.path
            yield (
                f"{num_again:,} row{'s' * (num_again > 1)} name{'s' * (num_again == 1)} a file again "
                f"(data.groups={column} keeps its rows in one split)"
            )

    @cached_property
    def _tables(self) -> list[Table]:
        return [Table(path) for path in self.tables]

    @cached_property
    def columns(self) -> Columns:
        """The columns of the training table; the held-out table has the same."""
        train, *others = self._tables
        found = find_columns(
            train,
            path=self.path,
            label=self.label,
            split=self.split,
            groups=self.groups,
            is_file=lambda cell: bool(cell) and os.path.isfile(self._found(train, cell) or ""),
        )
        for other in others:
            for name in (found.path, *found.labels, *found.pixels):
                if name is not None and name not in other.header:
                    raise UserError(
                        f"{other.path} has no column {shown(name)}, which {train.path} has: rename it"
                    )
        return found

    def _path(self, table: Table, cell: str) -> str:
        """Return the path that a cell names."""
        ending = "" if cell.lower().endswith(self.suffix.lower()) else self.suffix
        cell = os.path.expanduser(cell) if cell.startswith("~") else cell
        return os.path.join(table.path.parent / self.folder, f"{cell}{ending}")

    def _found(self, table: Table, cell: str) -> str | None:
        """Return the path of the file that a cell names, perhaps as another system writes it."""
        path = self._path(table, cell)
        return path if _is_there(path) else next(filter(_is_there, other_spellings(path)), None)

    def _location(self, table: Table, line: int, row: Sequence[str]) -> str:
        """Return the path of a row's file.

        Raises:
            UserError: The cell is empty, or there is no such file.
        """
        column = self.columns.path
        assert column is not None
        cell = row[table.index(column)]
        if not cell:
            raise UserError(f"{table.place(line)}: the column {column!r} is empty")
        found = self._found(table, cell)
        if found is None and not self.skip_unreadable:
            raise UserError(
                f"{table.place(line)}, column {column}: {shown(cell)} is missing, expected the file "
                f"{self._path(table, cell)[-200:]}: {self._remedy(table, cell)}"
            )
        return found or self._path(table, cell)

    def _remedy(self, table: Table, cell: str) -> str:
        """Return what to type if a cell names no file."""
        if "://" in cell:
            return "it is an address on the web; download the images and write their paths instead"
        if os.path.isdir(self._path(table, cell)):
            return "it is a folder; write the path of an image file"
        here = table.path.parent
        if not (here / self.folder).is_dir() and not os.path.isabs(cell):
            return (
                f"there is no folder {here / self.folder}; type data.folder=<folder of the images>, "
                "relative to the table's"
            )
        folders = [here / self.folder, here, *sorted(p for p in here.iterdir() if p.is_dir())]
        name = os.path.basename(cell.replace("\\", "/"))
        for folder in folders:
            for ending in ("", *readable_endings()):
                if os.path.isfile(os.path.join(folder, cell + ending)):
                    keys = [f"data.folder={os.path.relpath(folder, here)}"]
                    suffix = [f"data.suffix={ending or 'null'}"] * (ending != self.suffix)
                    return f"type {' '.join(keys + suffix)}"
        for folder in folders:
            if os.path.isfile(folder / name):
                there = os.path.relpath(folder / name, here / self.folder)
                return f"is it {there}? correct the column, or type data.on_bad_file=skip to leave it out"
        return "restore the file, correct the cell, or type data.on_bad_file=skip to leave it out"

    # Labels and splits --------------------------------------------------------------------------

    def read(self) -> Source:
        """Read pixels (N, H, W, C) uint8 or paths, with labels."""
        labels = [list(self._labels(table)) for table in self._tables]
        parts = [list(self._splits(table)) for table in self._tables]
        trained = [row for row, part in zip(labels[0], parts[0], strict=True) if part == "train"]
        names = self._names(trained)
        numbers = [
            self._numbered(table, found, names)
            for table, found in zip(self._tables, labels, strict=True)
        ]
        read = [
            self._part(table, found) for table, found in zip(self._tables, numbers, strict=True)
        ]
        if self.split is None:
            divided = dict(zip(self._splits_of_tables, read, strict=True))
            return Source(names, divided["train"], divided.get("val"), divided.get("test"))
        of = {
            name: np.array([part == name for part in parts[0]]) for name in ("train", "val", "test")
        }
        divided = {name: _some_of(read[0], rows) for name, rows in of.items() if rows.any()}
        return Source(names, divided["train"], divided.get("val"), divided.get("test"))

    def column(self, name: str, part: str) -> Sequence[str] | None:
        """Return the cells of a column, without those of unreadable images that were skipped."""
        wanted = {"heldout": "val"}.get(part, part)
        table = self._tables[0 if self.split else self._splits_of_tables.index(wanted)]
        if name not in table.header:
            return None
        index = table.index(name)
        cells = [
            row[index]
            for (_, row), split in zip(table.rows(), self._splits(table), strict=True)
            if self.split is None or split == wanted
        ]
        kept = self.kept_rows(part)
        return cells if kept is None else [cells[row] for row in kept]

    def _labels(self, table: Table) -> Iterator[tuple[int, str]]:
        """Yield (line, label) of each row."""
        columns = [(name, table.index(name)) for name in self.columns.labels]
        is_empty = True
        for line, row in table.rows():
            is_empty = False
            if len(columns) == 1:
                [(name, index)] = columns
                if not row[index]:
                    raise UserError(f"{table.place(line)}: the column {name!r} is empty")
                if "\n" in row[index]:
                    raise UserError(
                        f"{table.place(line)}: the label {shown(row[index])} has a line break; a quote "
                        'before it (") may be too many'
                    )
                yield line, class_name(row[index])
                continue
            says = {name: one_hot_value(row[index]) for name, index in columns}
            for name, index in columns:
                if says[name] is None:
                    raise UserError(
                        f"{table.place(line)}: the column {name} is {shown(row[index])}, expected 0 or 1"
                    )
            chosen = [name for name in says if says[name]]
            if len(chosen) != 1:
                raise UserError(
                    f"{table.place(line)}: {len(chosen)} classes ({one_of(chosen) or 'none'}), expected "
                    "one: correct the line"
                )
            yield line, chosen[0]
        if is_empty:
            raise UserError(f"{table.path} has a header but no rows; expected one row per image")

    def _splits(self, table: Table) -> Iterator[str]:
        """Yield the split of each row: train, val or test."""
        if self.split is None:
            yield from ("train" for _ in table.rows())
            return
        index, found = table.index(self.split), set()
        for line, row in table.rows():
            name = split_of(row[index]) or _split_by_flag(self.split, row[index])
            if name is None:
                raise UserError(
                    f"{table.place(line)}: the column {self.split} is {shown(row[index])}, expected train, "
                    "val or test, or true and false in a column named is_val or is_test: correct the column"
                )
            found.add(name)
            yield name
        if "train" not in found:
            raise UserError(
                f"{table.path}: the column {self.split} never says train, only {one_of(sorted(found))}"
            )

    def _names(self, labels: Sequence[tuple[int, str]]) -> tuple[str, ...]:
        if self.class_names is not None:
            return tuple(map(str, self.class_names))
        if self.num_classes is not None:
            return tuple(map(str, range(self.num_classes)))
        if len(self.columns.labels) > 1:
            return self.columns.labels
        texts = [text for _, text in labels]
        return class_names_of(texts, lambda row: self._tables[0].place(labels[row][0]))

    def _numbered(
        self, table: Table, labels: Sequence[tuple[int, str]], names: Sequence[str]
    ) -> NDArray[np.int64]:
        """Return the labels as indices into the names."""
        index = {name: number for number, name in enumerate(names)}
        are_positions = self.class_names is not None or self.num_classes is not None
        found = np.zeros(len(labels), np.int64)
        for row, (line, text) in enumerate(labels):
            number = index.get(text)
            if number is None and are_positions:  # a number is the index of a name
                whole = re.fullmatch(r"(\d{1,9})(\.0*)?", text, re.ASCII)
                number = int(whole[1]) if whole and int(whole[1]) < len(names) else None
            if number is None:
                raise UserError(
                    f"{table.place(line)}: the label {shown(text)} is not one of the {len(names)} classes "
                    f"of training, {one_of(names)}: correct it"
                )
            found[row] = number
        return found

    # Images -------------------------------------------------------------------------------------

    def _part(self, table: Table, labels: NDArray[np.int64]) -> Part:
        if self.columns.path is None:
            return self._pixels(table, labels)
        paths: list[Path] = []
        rows: dict[str, tuple[int, int]] = {}  # line and label of each file
        for (line, row), label in zip(table.rows(), labels.tolist(), strict=True):
            path = self._location(table, line, row)
            before, other = rows.setdefault(path, (line, label))
            if other != label:
                raise UserError(
                    f"{table.place(line)}: {as_utf8(path)} has another label than on line {before}: an "
                    "image has one class; remove one of the lines"
                )
            paths.append(Path(path))
        return Files(paths, labels)

    def _pixels(self, table: Table, labels: NDArray[np.int64]) -> Arrays:
        names: Sequence[str] = self.columns.pixels
        columns = [table.index(name) for name in names]
        first = next((row for _, row in table.rows()), [])
        listed = numbers_in(first[columns[0]]) if len(columns) == 1 else []
        if listed:  # one column lists all pixels
            names = [f"{names[0]} {number}" for number in range(1, len(listed) + 1)]
        channels, height, width = self._shape(table, names)
        pixels = np.empty((len(labels), len(names)), np.uint8)
        for number, (line, row) in enumerate(table.rows()):
            cells = [row[column] for column in columns]
            if listed:
                cells = numbers_in(cells[0])
                if len(cells) != len(names):
                    raise UserError(
                        f"{table.place(line)}: the column {self.columns.pixels[0]} lists {len(cells):,} "
                        f"pixels, expected {len(names):,}: correct the line"
                    )
            try:
                values = bytes(map(_VALUES.__getitem__, cells))
            except KeyError:
                where = table.place(line)
                values = bytes(map(_value, cells, names, [where] * len(cells)))
            pixels[number] = np.frombuffer(values, np.uint8)
        return Arrays(pixels.reshape(-1, height, width, channels), labels)

    def _shape(self, table: Table, names: Sequence[str]) -> tuple[int, int, int]:
        side = math.isqrt(len(names))
        channels, height, width = self.shape or (1, side, side)
        if channels * height * width != len(names) or not names:
            raise UserError(
                f"{table.path} has {len(names)} columns of pixels, which is not {channels}×{height}×"
                f"{width} ({one_of(names, 3)}): type data.shape={_usual_shape(len(names))} with the shape of "
                "an image"
            )
        return channels, height, width


def other_spellings(path: str) -> Iterator[str]:
    """Yield a path as other systems write it: with / for \\, its ending in the other case, and with
    accents as separate characters (macOS) or not.
    """
    for one in dict.fromkeys((path, path.replace("\\", "/"))):
        stem, ending = os.path.splitext(one)
        for two in dict.fromkeys((one, f"{stem}{ending.lower()}", f"{stem}{ending.upper()}")):
            yield two
            yield from (unicodedata.normalize(form, two) for form in ("NFC", "NFD"))


def _is_there(path: str) -> bool:
    """Return whether there is something at a path that is no folder."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):  # ValueError: a name with a byte of zero
        return False


def _usual_shape(num_pixels: int) -> str:
    """Return the shape of a square image in colour of so many values, or [C,H,W]."""
    side = math.isqrt(num_pixels // 3)
    return f"[3,{side},{side}]" if 3 * side * side == num_pixels else "[C,H,W]"


def _split_by_flag(column: str, cell: str) -> str | None:
    """Return the split of a row by a column such as is_valid, which says true or false; else None."""
    named, says = split_of(column.lower().removeprefix("is_")), one_hot_value(cell)
    if named is None or says is None:
        return None
    return named if says else "test" if named == "train" else "train"


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)


def _value(cell: str, name: str, where: str) -> int:
    """Return the value of a pixel that is not written as plainly as most."""
    found = _VALUE.fullmatch(cell)
    if found is None or int(found[1]) > 255:
        raise UserError(f"{where}: {name} is {shown(cell)}, expected an integer from 0 to 255")
    return int(found[1])


def _some_of(part: Part, rows: NDArray[np.bool_]) -> Part:
    if isinstance(part, Arrays):
        return Arrays(part.images[rows], part.labels[rows])
    paths = [path for path, is_in in zip(part.paths, rows, strict=True) if is_in]
    return Files(paths, part.labels[rows])
