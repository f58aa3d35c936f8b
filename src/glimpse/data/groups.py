"""`data.groups`: which images must be on the same side of a split, such as those of one patient.

The group of an image is its cell in a column of the table, if the table has this column, or else
the match of a regular expression in its path.
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
    """Return the number of each image's group (N,).

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
    elif paths is None:
        raise UserError(
            f"data.groups={asked}: this dataset has no column of this name and no file names to "
            "search; remove data.groups"
        )
    else:
        names = _matched(asked, paths)
    found, numbers = np.unique(np.array(names), return_inverse=True)
    if len(found) < 2:
        raise UserError(
            f"data.groups={asked}: all images are in one group, {found[0]!s}; expected two or more"
        )
    return numbers.astype(np.int64)


def _matched(asked: str, paths: Sequence[Path]) -> list[str]:
    try:
        expression = re.compile(asked)
    except re.error as error:
        raise UserError(f"data.groups={asked}: {error}") from error
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
            "change it"
        )
    return [name for name in names if name]
