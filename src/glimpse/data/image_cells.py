"""Images inside the cells of a table: files, their paths, or lists of pixels."""

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glimpse.data.decode import PixelFormat, decoded, reading
from glimpse.errors import UnreadableImageError, UserError
from glimpse.files import special_kind


@contextmanager
def opened_image(cell: Any, column: str, what: str) -> Iterator[Image.Image]:
    """Open the image file in a cell."""
    content = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if isinstance(cell, Mapping) and content is None and cell.get("path"):
        content = _content_of(Path(str(cell["path"])), what)
    if isinstance(content, list):
        content = _as_file(content)
    if not isinstance(content, bytes):
        hint = " (for paths of files, save the table as CSV and type data=csv)"
        kind = UnreadableImageError if cell is None else UserError
        raise kind(
            f"{what}: the column {column} contains {str(cell)[:40]!r}, expected an image"
            f"{hint * isinstance(cell, str)}"
        )
    with reading(io.BytesIO(content), name=what) as image:
        yield image


def _content_of(path: Path, what: str) -> bytes:
    """The content of a file that a cell names; a pipe or a device would never end."""
    try:
        kind = special_kind(os.stat(path).st_mode)
        if kind is not None:
            raise UnreadableImageError(
                f"{what}: {path} is {kind}, expected an image file: restore it"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImageError(
            f"{what}: cannot read {path}: {reason}: restore this file"
        ) from error


def decode_rows(
    chosen: Sequence[int],
    start: int,
    *,
    rows: Any,
    column: str,
    name: str,
    wanted: PixelFormat,
    skip_unreadable: bool,
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Decode the images of some rows of a table of Hugging Face's datasets.

    Args:
        chosen: The rows to decode.
        start: The number of the first of them.
        rows: The whole table, whose images are files or lists of pixels.
        column: The column of images.
        name: The name of the table in errors.
        wanted: The format of the decoded images.
        skip_unreadable: Whether to skip images that cannot be read.

    Returns:
        The decoded images (N, H, W, C), and the reason for each row that was skipped.

    Raises:
        UserError: an image cannot be read.
    """
    images, bad = [], {}
    for row, cells in enumerate(rows.select(chosen), start):
        what = f"{name}[{row}]"
        try:
            with opened_image(cells[column], column, what) as image:
                images.append(decoded(image, wanted, what))
        except UnreadableImageError as error:
            if not skip_unreadable:
                raise
            bad[row] = str(error)
    return np.array(images, np.uint8).reshape(-1, *wanted.shape), bad


def is_encoded(feature: Any) -> bool:
    """Whether a column may contain the bytes of image files, as some programs write it."""
    if isinstance(feature, Mapping):
        return "bytes" in feature
    return str(getattr(feature, "dtype", "")) in ("binary", "large_binary")


def _as_file(values: list[Any]) -> bytes | None:
    """Return a list of pixels from 0 to 255 as the content of an image file; None for other lists.

    The list is (H, W), (H, W, 3) or (3, H, W), or the H·W values of a grey square.
    """
    try:
        pixels = np.array(values)
    except ValueError:  # lists of different lengths
        return None
    if pixels.ndim == 1 and (side := math.isqrt(len(pixels))) ** 2 == len(pixels):
        pixels = pixels.reshape(side, side)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if not is_image or pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        return None
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG", compress_level=0)
    return file.getvalue()
