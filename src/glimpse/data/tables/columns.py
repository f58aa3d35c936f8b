"""The columns of a table by their role: named by keys, or detected if they are unambiguous."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from glimpse.data.formats import readable_endings
from glimpse.data.splits import split_of
from glimpse.data.tables.pixel_names import by_number, of_one_kind
from glimpse.data.tables.table import LABELS, NUMBER, PATHS, Table, one_of, shown
from glimpse.errors import UserError
from glimpse.text import plural

FEWEST_PIXELS = 16  # fewer columns without numbers in their names are ids, ages and the like
SPLIT_COLUMNS = ("split", "splits", "subset", "set", "usage", "fold", "partition", "phase")


@dataclass(frozen=True)
class Columns:
    """The columns of a table by their role.

    `path` is None in a table of pixels. `pixels` are the columns of the pixels in order, or the one
    column whose cells list all of them. `labels` is one column, or one for each class. `remarks`
    tell the user which columns were detected and which were skipped.
    """

    path: str | None
    labels: tuple[str, ...]
    split: str | None
    pixels: tuple[str, ...]
    remarks: tuple[str, ...]


def find_columns(
    table: Table,
    *,
    path: str | None,
    label: str | Sequence[str] | None,
    split: str | None,
    groups: str | None,
    has_shape: bool,
    is_file: Callable[[str], bool],
) -> Columns:
    """Find the columns of a table.

    Args:
        table: The table.
        path: The column of paths, if it is given.
        label: The column of labels, or one column for each class, if given.
        split: The column of splits, if there is one.
        groups: The value of `data.groups`, which may be a column.
        has_shape: Whether the shape of an image stored as pixels is given.
        is_file: Whether a cell names an existing image.

    Raises:
        UserError: a given column does not exist, a column is missing or ambiguous, or the columns
            contain neither files nor an image's pixels.
    """
    remarks = []
    if table.num_unnamed:
        remarks.append(f"{plural(table.num_unnamed, 'column')} without a name skipped")
    if not table.has_header:
        remarks.append("no header: the columns are 1, 2, …")
    _require(table, split, "split")
    given = [label] if isinstance(label, str) else list(label or ())
    for name in given:
        _require(table, name, "label")
    sample = table.sample()
    cells = {name: [row[table.index(name)] for row in sample] for name in table.columns}
    found_path = _path_column(table, path, {*given, split}, groups, cells, is_file)
    if (
        found_path is not None
        and table.has_header
        and found_path.lower() not in PATHS
        and is_file(found_path)
    ):
        raise UserError(
            f"{table.path}, line 1: {shown(found_path)} names an image, expected the names of the columns: "
            "insert a line such as path,label before it"
        )
    if found_path not in (path, "path", None):
        remarks.append(f"paths in the column {found_path}")
    rest = [name for name in table.columns if name not in (found_path, split, groups)]
    if groups in table.columns and (
        groups in given or not (given or rest) or (groups == "label" and not given)
    ):
        raise UserError(
            f"data.groups={groups} is the column of labels, expected one whose equal cells stay in one split: "
            "type data.groups=<another column>"
        )
    if split is None:
        remarks += [_unused_split(table, name, cells[name]) for name in rest if name not in given]
    labels = given or _label_columns(table, rest, cells, has_paths=found_path is not None)
    if not given and labels != ["label"]:
        kind = "column" if len(labels) == 1 else "columns, one per class,"
        remarks.append(f"labels in the {kind} {one_of(labels)}")
    pixels: list[str] = []
    if found_path is None:
        free = {name: cells[name] for name in rest if name not in labels}
        pixels, more = _pixel_columns(free)
        remarks += more
        are_lists = len(pixels) == 1 and all(map(numbers_in, cells[pixels[0]]))
        are_numbered = table.has_header and all(re.search(r"\d", name) for name in pixels)
        is_doubtful = len(pixels) < FEWEST_PIXELS or any(name.lower() in PATHS for name in pixels)
        if sample and is_doubtful and not (has_shape or are_lists or (pixels and are_numbered)):
            raise _without_files(table, pixels)
    return Columns(found_path, tuple(labels), split, tuple(pixels), tuple(filter(None, remarks)))


def _pixel_columns(cells: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Return the columns of the pixels in order, or the one column whose cells list all of them,
    and remarks. `cells` are some of each column to choose from."""
    pixels, remarks = list(cells), []
    lists = [name for name, some in cells.items() if some and all(map(numbers_in, some))]
    if len(lists) == 1:
        others = [name for name in pixels if name not in lists]
        remarks += [f"skipped, because they are not pixels: {one_of(others)}"] * bool(others)
        pixels = lists
    pixels, odd = of_one_kind(pixels)
    if odd:
        remarks.append(f"skipped, because they are not named like the pixels: {one_of(odd)}")
    numbered = [name for name in pixels if any(c.isdigit() for c in name)]
    if len(pixels) > len(numbered) > len(pixels) / 2:
        others = [name for name in pixels if not any(c.isdigit() for c in name)]
        remarks.append(f"skipped, because they have no number: {one_of(others)}")
        pixels = numbered
    if (ordered := by_number(pixels)) != pixels:
        remarks.append(f"pixels in the order of their numbers, from {ordered[0]} to {ordered[-1]}")
        pixels = ordered
    return pixels, remarks


def _require(table: Table, column: str | None, key: str) -> None:
    if column is not None and column not in table.columns:
        raise UserError(
            f"{table.path} has no column {shown(column)}, its columns are {one_of(table.columns)}: type "
            f"data.{key}=<column>"
        )


def _path_column(
    table: Table,
    path: str | None,
    taken: set[str | None],
    groups: str | None,
    cells: Mapping[str, Sequence[str]],
    is_file: Callable[[str], bool],
) -> str | None:
    """Return the column of paths; None for a table of pixels. `cells` are some of each column."""
    if path is not None:
        _require(table, path, "path")
        return path
    if "path" in table.columns:
        return "path"
    free = [name for name in table.columns if name not in taken]
    for is_path in (is_file, _looks_like_a_file):
        found = [name for name in free if cells[name] and all(map(is_path, cells[name]))]
        if len(found) > 1:
            raise UserError(
                f"{table.path}: the columns {one_of(found)} all name files: type data.path={found[0]}, or "
                "another of them"
            )
        if found:
            return found[0]
    free = [name for name in free if name != groups]
    words = [
        name
        for name in free
        if not all(NUMBER.fullmatch(cell) or numbers_in(cell) for cell in cells[name])
    ]
    if len(words) < len(free) and any(cells[n] and all(map(numbers_in, cells[n])) for n in free):
        return None
    named = [name for name in free if name.lower() in PATHS]
    are_words = len(words) > len(free) / 2 or (len(free) < 3 and named)
    if are_words and any(cells.values()) and len(free) < FEWEST_PIXELS:
        raise _without_files(table, free)
    return None


def _without_files(table: Table, free: Sequence[str]) -> UserError:
    """Return the error for a table without files and pixels; `free` may contain the paths."""
    named = [name for name in free if name.lower() in PATHS]
    guess = named[0] if named else free[0] if len(free) == 1 else "<column>"
    where = " (named in line 1)" * table.has_header
    return UserError(
        f"{table.path}: none of its columns {one_of(table.columns)}{where} names image files: type "
        f"data.path={guess}, with data.folder=<folder of the images> and data.suffix=.jpg if its cells lack "
        "them, or data.shape=[C,H,W] if the columns are pixels"
    )


def _looks_like_a_file(cell: str) -> bool:
    return cell.lower().endswith(readable_endings())


def _label_columns(
    table: Table, rest: Sequence[str], cells: Mapping[str, Sequence[str]], *, has_paths: bool
) -> list[str]:
    named = [name for name in rest if name.lower() in LABELS]
    if "label" in rest:
        return ["label"]
    if len(named) == 1:
        return named
    if has_paths and len(rest) == 1:
        return list(rest)
    binary = [name for name in rest if _is_one_hot(cells[name])]
    if has_paths and len(binary) == len(rest) > 1 and any(cells.values()):
        return list(rest)
    rows = zip(*(cells[name] for name in binary), strict=True)
    are_classes = len(binary) > 1 and all(sum(map(bool, map(one_hot_value, r))) == 1 for r in rows)
    wanted = (
        f"data.label=[{','.join(binary)}], one column for each class"
        if are_classes
        else f"data.label={named[0] if named else '<column>' if table.has_header else '1'}"
    )
    raise UserError(
        f"{table.path} has no column 'label', its columns are {one_of(table.columns)}: type {wanted}"
    )


def _is_one_hot(cells: Iterable[str]) -> bool:
    return all(one_hot_value(cell) is not None for cell in cells)


def _unused_split(table: Table, name: str, sample: Sequence[str]) -> str:
    """Return a remark if a column seems to divide the images into splits; empty for others.

    It does if most of its cells name splits, or its name says so.
    """
    is_named = re.sub(r"[\W_]+", "", name.lower()) in SPLIT_COLUMNS
    is_flag = split_of(name.lower().removeprefix("is_")) is not None
    if not (is_named or is_flag or any(map(split_of, set(sample)))):
        return ""
    index = table.index(name)
    counts = Counter(row[index] for _, row in table.rows())
    named = {cell: split for cell in counts if (split := split_of(cell))}
    if is_flag and _is_one_hot(counts) and len(counts) > 1:
        return f"the column {name} is not used (data.split={name} takes its splits)"
    if len(set(named.values())) > 1 and 2 * sum(counts[cell] for cell in named) > counts.total():
        others = [cell for cell in counts if cell not in named]
        remedy = (
            f"it also contains {one_of(sorted(map(shown, others)), 3)}; data.split={name} takes its splits if all "
            "cells are train, val or test"
            if others
            else f"data.split={name} takes its splits"
        )
        return f"the column {name} is not used ({remedy})"
    return f"the column {name} is not used" if is_named and 1 < len(counts) <= 20 else ""


def numbers_in(cell: str) -> list[str]:
    """Return the pixels that a cell lists, as `0 12 255` or `[0, 12, 255]`; empty for others."""
    found = cell.strip("[]()").replace(",", " ").split()
    return found if len(found) > 3 and all(map(str.isdecimal, found)) else []


def one_hot_value(cell: str) -> bool | None:
    """Return the value of a cell in a one-hot column; None if it is neither true nor false."""
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    value = float(cell) if NUMBER.fullmatch(cell) else None
    return bool(value) if value in (0, 1) else None
