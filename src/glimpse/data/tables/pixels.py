"""Images whose pixels are in a table: one column per pixel, or one column that lists them all."""

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glimpse.data.tables.columns import numbers_in
from glimpse.data.tables.table import Table, one_of, shown
from glimpse.errors import UserError

# The values of pixels, as they are nearly always written.
_VALUES = {str(value): value for value in range(256)}
_VALUE = re.compile(r"0*(\d{1,3})(\.0*)?", re.ASCII)


def pixels_of(
    table: Table, columns: Sequence[str], shape: Sequence[int] | None, num_rows: int
) -> NDArray[np.uint8]:
    """Return the images of a table, (N, H, W, C).

    Args:
        table: The table.
        columns: The columns of the pixels in order, or the one column that lists all of them.
        shape: (C, H, W) of an image; None: grey and square.
        num_rows: The number N of rows.

    Raises:
        UserError: a pixel is not an integer from 0 to 255, or the number of pixels does not fit the
            shape.
    """
    names = columns
    indices = [table.index(name) for name in columns]
    first = next((row for _, row in table.rows()), [])
    listed = numbers_in(first[indices[0]]) if len(columns) == 1 else []
    if listed:
        names = [f"{columns[0]} {number}" for number in range(1, len(listed) + 1)]
    channels, height, width = _shape_of_image(table, names, shape)
    pixels = np.empty((num_rows, len(names)), np.uint8)
    for number, (line, row) in enumerate(table.rows()):
        cells = [row[index] for index in indices]
        if listed:
            cells = numbers_in(cells[0])
            if len(cells) != len(names):
                raise UserError(
                    f"{table.place(line)}: the column {columns[0]} lists {len(cells):,} "
                    f"pixels, expected {len(names):,}: correct the line"
                )
        try:
            values = bytes(map(_VALUES.__getitem__, cells))
        except KeyError:
            where = table.place(line)
            values = bytes(map(_value, cells, names, [where] * len(cells)))
        pixels[number] = np.frombuffer(values, np.uint8)
    return pixels.reshape(-1, height, width, channels)


def _shape_of_image(
    table: Table, names: Sequence[str], shape: Sequence[int] | None
) -> tuple[int, int, int]:
    side = math.isqrt(len(names))
    channels, height, width = shape or (1, side, side)
    if channels * height * width != len(names) or not names:
        raise UserError(
            f"{table.path} has {len(names)} columns of pixels, which is not {channels}×{height}×"
            f"{width} ({one_of(names, 3)}): type data.shape={_usual_shape(len(names))} with the shape of "
            "an image"
        )
    return channels, height, width


def _usual_shape(num_pixels: int) -> str:
    """Return the shape of a square colour image with this many values, or else [C,H,W]."""
    side = math.isqrt(num_pixels // 3)
    return f"[3,{side},{side}]" if 3 * side * side == num_pixels else "[C,H,W]"


def _value(cell: str, name: str, where: str) -> int:
    """Return the value of a pixel in an unusual notation, such as 007 or 12.0."""
    found = _VALUE.fullmatch(cell)
    if found is None or int(found[1]) > 255:
        raise UserError(f"{where}: {name} is {shown(cell)}, expected an integer from 0 to 255")
    return int(found[1])
