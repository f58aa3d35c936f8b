"""The label of each row of a table, and its split if the table has one."""

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from glimpse.data.splits import split_of
from glimpse.data.tables.columns import one_hot_value
from glimpse.data.tables.table import Table, one_of, shown
from glimpse.errors import UserError
from glimpse.text import class_name

WITHOUT_LABEL = {"", "-1"}  # the cells of test rows whose labels are secret


def labels_of(table: Table, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, label) of each row."""
    columns = [(name, table.index(name)) for name in names]
    is_empty = True
    for line, row in table.rows():
        is_empty = False
        if len(columns) == 1:
            [(name, index)] = columns
            if not row[index]:
                raise UserError(
                    f"{table.place(line)}: the column {name!r} is empty: write the label, or remove the line"
                )
            if "\n" in row[index]:
                raise UserError(
                    f"{table.place(line)}: the label {shown(row[index])} has a line break; there may be "
                    'a stray quote (") before it'
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


def splits_of(table: Table, column: str) -> Iterator[str]:
    """Yield the split of each row: train, val or test."""
    index, found = table.index(column), set()
    for line, row in table.rows():
        name = split_of(row[index]) or _split_by_flag(column, row[index])
        if name is None:
            raise UserError(
                f"{table.place(line)}: the column {column} is {shown(row[index])}, expected train, "
                "val or test, or true and false in a column named is_val or is_test: correct the column"
            )
        found.add(name)
        yield name
    if "train" not in found:
        raise UserError(
            f"{table.path}: the column {column} never contains train, only {one_of(sorted(found))}"
        )


def unlabelled_test_rows(table: Table, labels: Sequence[str], split: str) -> list[int]:
    """Return the lines of the test rows if none of them has a label, and otherwise none."""
    indices = [table.index(name) for name in labels]
    lines: list[int] = []
    tested, others = set[str](), set[str]()
    for (line, row), part in zip(table.rows(), splits_of(table, split), strict=True):
        lines += [line] * (part == "test")
        (tested if part == "test" else others).update(row[index] for index in indices)
    return lines if tested <= WITHOUT_LABEL - others else []


def is_unlabelled(test: Table, others: Iterable[Table], labels: Sequence[str]) -> bool:
    """Whether a test table has rows, but none with a label; `others` show whether -1 is a label."""
    found = set[str]()
    for cell in _cells_of(test, labels):
        # Usually the first one, so that no start reads the whole table.
        if cell not in WITHOUT_LABEL:
            return False
        found.add(cell)
    return bool(found) and not any(found & set(_cells_of(table, labels)) for table in others)


def _cells_of(table: Table, columns: Sequence[str]) -> Iterator[str]:
    indices = [table.index(name) for name in columns]
    return (row[index] for _, row in table.rows() for index in indices)


def are_positions(labels: Sequence[str], names: Sequence[str]) -> bool:
    """Whether labels are indices into the names, rather than names.

    All labels of a dataset are read in the same way, even if the names are numbers: as names if all of
    them are names, and otherwise in the way that fits more of them.
    """
    found = set(labels)
    of_names = found & set(names)
    of_positions = {text for text in found if _position(text, names) is not None}
    return of_names != found and len(of_positions) > len(of_names)


def numbered(
    table: Table, labels: Sequence[tuple[int, str]], names: Sequence[str], *, by_position: bool
) -> NDArray[np.int64]:
    """Return labels, which are names or indices into the names (`by_position`), as indices."""
    index = {name: number for number, name in enumerate(names)}
    found = np.zeros(len(labels), np.int64)
    for row, (line, text) in enumerate(labels):
        number = _position(text, names) if by_position else index.get(text)
        if number is None:
            raise UserError(
                f"{table.place(line)}: the label {shown(text)} is not one of the {len(names)} classes "
                f"of training, {one_of(names)}: correct it"
            )
        found[row] = number
    return found


def _position(text: str, names: Sequence[str]) -> int | None:
    whole = re.fullmatch(r"(\d{1,9})(\.0*)?", text, re.ASCII)
    return int(whole[1]) if whole and int(whole[1]) < len(names) else None


def _split_by_flag(column: str, cell: str) -> str | None:
    """Return the split of a row from a true-or-false column such as is_valid; None for others."""
    named, says = split_of(column.lower().removeprefix("is_")), one_hot_value(cell)
    if named is None or says is None:
        return None
    return named if says else "test" if named == "train" else "train"
