"""`data.groups`: which images must be on the same side of a split, such as those of one patient.

The group of an image is its cell in a column of the table, if the table has this column, or else
the match of a regular expression in its path. A random split draws whole groups.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimpse.data.identity import common_folder
from glimpse.errors import UserError


def group_numbers(
    asked: str, column: Sequence[str] | None, paths: Sequence[Path] | None
) -> NDArray[np.int64]:
    """Return the number of each image's group (N,); the arguments are those of `group_names`.

    Raises:
        UserError: as in `group_names`, or there is a single group.
    """
    names = group_names(asked, column, paths)
    found, numbers = np.unique(np.array(names), return_inverse=True)
    if len(found) < 2:
        raise UserError(
            f"data.groups={asked}: all images are in one group, {found[0]!s}; expected two or more"
        )
    return numbers.astype(np.int64)


def group_names(
    asked: str, column: Sequence[str] | None, paths: Sequence[Path] | None
) -> list[str]:
    """Return the name of each image's group (N,).

    Args:
        asked: `data.groups`.
        column: The cells of the column of this name; None if there is no such column.
        paths: The files of the images; None if the images are not files.

    Raises:
        UserError: there is neither a column nor a file, or an image has no group.
    """
    if column is not None:
        names = [cell.strip() for cell in column]
        if "" in names:
            raise UserError(
                f"data.groups={asked}: the column is empty in {names.count(''):,} of "
                f"{len(names):,} rows, first in row {names.index('') + 1}; fill it in"
            )
        return names
    if paths is None:
        raise UserError(
            f"data.groups={asked}: this dataset has no column of this name and no file names to "
            "search; remove data.groups"
        )
    return _matched(asked, paths)


def _matched(asked: str, paths: Sequence[Path]) -> list[str]:
    try:
        expression = re.compile(asked)
    except re.error as error:
        raise UserError(f"data.groups={asked}: expected a regular expression ({error})") from error
    if expression.groups > 1 and "group" not in expression.groupindex:
        raise UserError(
            f"data.groups={asked}: expected at most one group in parentheses, or a named one, "
            "(?P<group>…)"
        )
    part = "group" if "group" in expression.groupindex else min(1, expression.groups)
    texts = [str(path) for path in paths]
    start = len(common_folder(texts))
    texts = [text[start:].replace(os.sep, "/") for text in texts]
    matches = [expression.search(text) for text in texts]
    names = [match[part] if match else None for match in matches]
    without = [text for text, name in zip(texts, names, strict=True) if not name]
    if without:
        raise UserError(
            f"data.groups={asked}: there is no column of this name, and as a pattern it finds no "
            f"group in {len(without):,} of {len(texts):,} file names, for example {without[0]}: "
            "type the name of a column, or change the pattern"
        )
    return [name for name in names if name]


def drawn_groups(
    groups: NDArray[np.int64], labels: NDArray[np.int64], share: float, *, seed: int, typed: str
) -> NDArray[np.bool_]:
    """Draw whole groups with about a share of the images, and about that share of each class.

    In random order, groups are drawn first that bring the classes nearer to their shares, then any
    that fit. At last, one more is drawn if the number of images is then nearer to the share.

    Args:
        groups: (N,), the group of each image.
        labels: (N,), the label of each image.
        share: The share of the images, between 0 and 1.
        seed: The seed of the order.
        typed: The setting that asks for the share, for error messages.

    Returns:
        (N,), whether each image is drawn. Some image is drawn, and some is not.

    Raises:
        UserError: there is a single group, or the groups are too large for the share.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    _, label_of = np.unique(labels, return_inverse=True)
    num_groups, num_classes = group_of.max() + 1, label_of.max() + 1
    if num_groups < 2:
        raise UserError(f"{typed}: all images are of one group, so none can be held out")
    sizes, missing = np.bincount(group_of).tolist(), np.bincount(label_of) * share
    # The few classes of each group, because all groups by all classes may not fit into memory.
    pairs, numbers = np.unique(group_of * num_classes + label_of, return_counts=True)
    owners, classes = np.divmod(pairs, num_classes)
    starts = np.searchsorted(owners, np.arange(num_groups + 1))
    wanted = room = min(max(1, round(share * len(groups))), len(groups) - 1)
    left = np.random.default_rng(seed).permutation(num_groups).tolist()
    drawn: list[int] = []
    for is_balanced in (True, False):
        order, left = left, []
        for group in order:
            fits = sizes[group] <= room
            of_group = slice(starts[group], starts[group + 1])
            counts = np.zeros(num_classes, np.int64)
            counts[classes[of_group]] = numbers[of_group]
            if fits and (not is_balanced or counts @ (2 * missing - counts) > 0):
                drawn.append(group)
                missing = missing - counts
                room -= sizes[group]
            else:
                left.append(group)
    smallest = min(left, key=sizes.__getitem__)
    if not drawn or (len(left) > 1 and sizes[smallest] < 2 * room):
        drawn.append(smallest)
    is_drawn: NDArray[np.bool_] = np.isin(group_of, drawn)
    if (num_drawn := int(is_drawn.sum())) > 2 * wanted:
        raise UserError(
            f"{typed}: at least {num_drawn:,} of {len(groups):,} images would be held out, because the "
            f"{num_groups:,} groups are large: type a larger fraction, or smaller groups"
        )
    return is_drawn
