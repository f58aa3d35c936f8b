"""Tables with one image per row: its label, and either its pixels or the path of its file.

Sign Language MNIST has the columns `label,pixel1,…,pixel784`. A table of files has the columns
`path,label`, with paths relative to the table. Columns with other names are detected if they are
unambiguous. Errors in a table are reported with file and line before any image is decoded. The
modules in ../tables read the parts of a table.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from glimpse.config.places import wrong_place
from glimpse.data.labels import class_names_of, may_be_missing
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Files, Part, Source, require_shape
from glimpse.data.splits import UNLABELLED
from glimpse.data.tables.columns import Columns, find_columns
from glimpse.data.tables.files import TableFiles, one_path
from glimpse.data.tables.pixels import pixels_of
from glimpse.data.tables.rows import (
    are_positions,
    is_unlabelled,
    labels_of,
    numbered,
    splits_of,
    unlabelled_test_rows,
)
from glimpse.data.tables.table import Table, shown
from glimpse.errors import UserError
from glimpse.text import as_utf8, class_name, plural

REPEATS = re.compile(r"rows? repeats? a file")  # in a remark

_Row = tuple[Table, int, int, str]  # of a file: the table, the line, the label and the split


class CsvTable(ImageDataModule):
    """One table, or a training table with a validation table, a test table or both.

    Args:
        train: Table of training images.
        val: The official held-out table, for validation; None: a fraction of `train` is held out.
        test: Table of test images, which are never used to choose a checkpoint.
        label: Column of labels, or a list of one-hot columns, which are 1 for the class of an image
            and 0 for the others; None: detect it.
        path: Column of paths; None: detect it. A table without such a column contains pixels: all
            other columns, in order.
        folder: Folder of the files, relative to the folder of the table.
        suffix: File extension to add to the cells of `path`.
        split: Column that contains train, val or test for each row.
        shape: (C, H, W) of an image stored as pixels; None: grey and square. The channels of a
            pixel are adjacent.
        class_names: Name of each label. The labels of the tables are these names, or 0, 1, … for the
            first, the second, …; None: the labels that occur.
        num_classes: Number of classes, if some do not occur. The labels are 0 to `num_classes` - 1.
        source: Where to get the tables, for the error message if they are missing.
        **common: Arguments of every dataset.
    """

    version: ClassVar[int] = 6

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
        self.tables = {
            split: Path(os.path.expanduser(table))
            for split, table in given.items()
            if table is not None
        }
        self.label = (
            _text(label)
            if label is None or isinstance(label, str | int)
            else list(map(class_name, label))
        )
        self.path = _text(path)
        self._files = TableFiles(folder, suffix, skip_unreadable=self.skip_unreadable)
        self.split = _text(split)
        self.shape = shape
        self.class_names = class_names
        self.num_classes = num_classes
        self.source = source
        if shape is not None:
            require_shape(shape)
        for key, table in {"val": val, "test": test}.items():
            if split is not None and table is not None:
                raise UserError(
                    f"data.split and data.{key} both give the splits: remove one of them"
                )
        if class_names is not None and num_classes is not None:
            raise UserError("data.num_classes and data.class_names cannot be combined: remove one")

    # Files --------------------------------------------------------------------------------------

    @property
    def archive_folder(self) -> Path:
        """The training table's folder, whether or not the archive contains this folder."""
        return self.tables["train"].parent

    def source_files(self) -> Iterable[Path | str]:
        """Return the tables and the files that they list."""
        if not all(table.exists() for table in self.tables.values()):
            return
        yield from self.tables.values()
        column = self.columns.path
        if column is not None:
            for table in self._labelled.values():
                for _, path in self._files.locations(table, column):
                    if not self.skip_unreadable or os.path.exists(path):
                        yield path

    def missing(self) -> str:
        split, table = next((s, table) for s, table in self.tables.items() if not table.is_file())
        wrong = wrong_place(f"data.{split}", str(table), source=self.source)
        return wrong or f"{table} is not a file, expected a table"

    def remarks(self) -> list[str]:
        """Report which columns were detected, and doubtful classes."""
        doubtful = [name for name in self.contents.class_names if may_be_missing(name)]
        missing = [f"the class {name} may stand for missing labels" for name in doubtful]
        repeats = any(REPEATS.search(remark) for remark in self.contents.remarks)
        advice = f"data.groups={self.columns.path} keeps the rows of a file in one split"
        return [*self.columns.remarks, *missing, *[advice] * (repeats and self.groups is None)]

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {split: Table(path) for split, path in self.tables.items()}

    @cached_property
    def _labelled(self) -> dict[str, Table]:
        """The tables by their splits, without the test images if none of them has a label."""
        tables = dict(self._tables)
        labels = self.columns.labels
        if self.split is not None:
            lines = unlabelled_test_rows(tables["train"], labels, self.split)
            tables["train"].leave_out(lines)
        elif "test" in tables:
            others = [table for split, table in tables.items() if split != "test"]
            if is_unlabelled(tables["test"], others, labels):
                del tables["test"]
        return tables

    @cached_property
    def columns(self) -> Columns:
        """The columns of the training table; the others have the same."""
        train = self._tables["train"]
        found = find_columns(
            train,
            path=self.path,
            label=self.label,
            split=self.split,
            groups=self.groups,
            has_shape=self.shape is not None,
            is_file=lambda cell: (
                bool(cell) and os.path.isfile(self._files.found(train, cell) or "")
            ),
        )
        for split, other in self._tables.items():
            has = set(other.header)
            for name in (found.path, *found.labels, *found.pixels):
                if name is not None and name not in has:
                    also = f", or remove data.{split} if its images have no labels"
                    raise UserError(
                        f"{other.path} has no column {shown(name)}, which {train.path} has: "
                        f"rename its column{also * (name in found.labels)}"
                    )
        return found

    # Labels and splits --------------------------------------------------------------------------

    def read(self) -> Source:
        """Read pixels (N, H, W, C) uint8 or paths, with labels."""
        tables = self._labelled
        labels = [list(labels_of(table, self.columns.labels)) for table in tables.values()]
        splits = (
            [[name] * len(of) for name, of in zip(tables, labels, strict=True)]
            if self.split is None
            else [list(splits_of(tables["train"], self.split))]
        )
        trained = [row for row, name in zip(labels[0], splits[0], strict=True) if name == "train"]
        names = self._names(trained)
        is_given = self.class_names is not None or self.num_classes is not None
        by_position = is_given and are_positions([t for of in labels for _, t in of], names)
        numbers = [
            numbered(table, found, names, by_position=by_position)
            for table, found in zip(tables.values(), labels, strict=True)
        ]
        seen: dict[str, _Row] = {}
        repeats = Counter[tuple[str, str]]()
        read = [
            self._part(table, found, of, seen, repeats)
            for table, found, of in zip(tables.values(), numbers, splits, strict=True)
        ]
        if self.split is None:
            divided = dict(zip(tables, read, strict=True))
        else:
            rows = {name: np.array(splits[0]) == name for name in ("train", "val", "test")}
            divided = {name: _some_of(read[0], of) for name, of in rows.items() if of.any()}
        held_out = (divided.get("val"), divided.get("test"))
        is_without = len(tables) < len(self._tables) or any(t.leaves_out for t in tables.values())
        remarks = [*[UNLABELLED] * is_without, *self._repeats(repeats)]
        return Source(names, divided["train"], *held_out, tuple(remarks))

    def column(self, name: str, part: str) -> Sequence[str] | None:
        """Return the cells of a column, without those of unreadable images that were skipped."""
        wanted = {"heldout": "val"}.get(part, part)
        table = self._tables["train" if self.split else wanted]
        if name not in table.header:
            return None
        index = table.index(name)
        is_path = name == self.columns.path
        splits = repeat(wanted) if self.split is None else splits_of(table, self.split)
        cells = []
        for (line, row), split in zip(table.rows(), splits, strict=False):
            if split == wanted and not row[index]:
                raise UserError(f"{table.place(line)}: the column {name!r} is empty: fill it in")
            if split == wanted:
                cells.append(self._files.identity(table, row[index]) if is_path else row[index])
        return self.without_skipped(cells, part)

    def _names(self, labels: Sequence[tuple[int, str]]) -> tuple[str, ...]:
        if self.class_names is not None:
            return tuple(map(class_name, self.class_names))
        if self.num_classes is not None:
            return tuple(map(str, range(self.num_classes)))
        if len(self.columns.labels) > 1:
            return self.columns.labels
        texts = [text for _, text in labels]
        return class_names_of(texts, lambda row: self._tables["train"].place(labels[row][0]))

    # Images -------------------------------------------------------------------------------------

    def _part(
        self,
        table: Table,
        labels: NDArray[np.int64],
        splits: Sequence[str],
        seen: dict[str, _Row],
        repeats: Counter[tuple[str, str]],
    ) -> Part:
        """Return the images of a table.

        Args:
            table: The table.
            labels: The label of each row.
            splits: The split of each row.
            seen: The first row of each file so far, added to here.
            repeats: The number of further rows, by their split and that of the first, added to here.

        Raises:
            UserError: a file has two labels.
        """
        column = self.columns.path
        if column is None:
            images = pixels_of(table, self.columns.pixels, self.shape, len(labels))
            return Arrays(images, labels)
        paths: list[Path] = []
        files = self._files.locations(table, column)
        for (line, path), label, split in zip(files, labels.tolist(), splits, strict=True):
            row = (table, line, label, split)
            first = seen.setdefault(one_path(path), row)
            before, number, other, split_before = first
            if other != label:
                raise UserError(
                    f"{table.place(line)}: the label of {as_utf8(path)} differs from {before.place(number)}: an "
                    "image has one class; remove one of the lines"
                )
            if first is not row:
                repeats[split, split_before] += 1
            paths.append(Path(path))
        return Files(paths, labels)

    def _repeats(self, repeats: Counter[tuple[str, str]]) -> Iterator[str]:
        """Yield how many files are in two splits, and how many rows repeat a file."""
        num_again = 0
        for (split, before), number in repeats.items():
            if split == before:
                num_again += number
            else:
                yield f"{plural(number, 'image')} of {split} also in {before}"
        if num_again and self.split is None:
            yield f"{plural(num_again, 'row')} repeat{'s' * (num_again == 1)} a file"


def _text(value: str | int | None) -> str | None:
    return None if value is None else class_name(value)  # as the table's header is read


def _some_of(part: Part, rows: NDArray[np.bool_]) -> Part:
    if isinstance(part, Arrays):
        return Arrays(part.images[rows], part.labels[rows])
    paths = [path for path, is_in in zip(part.paths, rows, strict=True) if is_in]
    return Files(paths, part.labels[rows])
