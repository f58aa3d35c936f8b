"""Decoding of image files, by content, in any mode and orientation, with optional crop and resize.

If a file cannot be read, the error message gives its path. This module does not import torch, so
that decoding processes start quickly.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from glimpse.errors import UserError

DRAFT = 3  # a JPEG is decoded at this many times the final side or more
_GREY_16_BIT = ("I;16", "I;16B", "I;16L")
_GREY = ("1", "L", *_GREY_16_BIT)  # Pillow's modes


class UnreadableImageError(UserError):
    """A file is not an image, is truncated or is rejected; `data.on_bad_file=skip` skips it."""


@dataclass(frozen=True)
class PixelFormat:
    """The format of decoded files: size, channels, and whether images are cropped to the size."""

    height: int
    width: int
    channels: int
    presize: bool


def probe(
    paths: Sequence[Path], presize: int | None, *, skip_unreadable: bool = False
) -> PixelFormat:
    """Determine the pixel format of files from a sample spread over the list.

    The format is grey only if all files are grey.

    Raises:
        UserError: The files differ in size and there is no `presize`, or a file cannot be read.
    """
    step = max(1, len(paths) // 64)
    sizes: dict[tuple[int, int], Path] = {}
    grey = True
    passed_over = (UnreadableImageError,) if skip_unreadable else ()
    for path in paths[::step]:
        with (
            suppress(*passed_over),
            reading(path) as image,
        ):  # Pillow reads a whole PNG to find its orientation
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # rotated by 90°
            sizes.setdefault(image.size[::-1] if turned else image.size, path)
            grey = grey and image.mode in _GREY
    channels = 1 if grey and all(map(_is_grey, paths)) else 3
    if not sizes:
        raise UserError(
            f"none of {len(paths[::step])} sampled images can be read, for example {paths[0]}: "
            "expected image files; replace them"
        )
    if presize is not None:
        return PixelFormat(presize, presize, channels, presize=True)
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise UserError(
            f"images differ in size ({one.name} is {first[0]}×{first[1]}, {other.name} is "
            f"{second[0]}×{second[1]}), expected one size: type data.presize=64 to crop and resize "
            "all of them to 64×64"
        )
    [(width, height)] = sizes
    return PixelFormat(height, width, channels, presize=False)


def _is_grey(path: Path) -> bool:
    """Check the header for a grey mode. A file without a readable header counts as grey."""
    with suppress(UnreadableImageError), open_image(path) as image:
        return image.mode in _GREY
    return True


def decode(path: Path, wanted: PixelFormat) -> NDArray[np.uint8]:
    """Decode a file to (H, W, C) uint8, upright according to its EXIF orientation.

    Raises:
        UserError: The file is not a readable image, or does not have the wanted size.
    """
    with reading(path) as image:
        if wanted.presize:  # decode a much larger JPEG at 1/2, 1/4 or 1/8 of its size
            image.draft(None, (DRAFT * wanted.width, DRAFT * wanted.height))
        return fitted(image, wanted, str(path))


def fitted(image: Image.Image, wanted: PixelFormat, name: str) -> NDArray[np.uint8]:
    """Convert an image to (H, W, C) uint8; with `presize`, crop the centre square and resize it.

    The resizing is bilinear with antialiasing: it averages all pixels that a new pixel covers.

    Raises:
        UserError: The image does not have the wanted size; the message uses `name`.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _GREY_16_BIT:  # Pillow would clip values at 255
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    image = image.convert("L" if wanted.channels == 1 else "RGB")
    if wanted.presize:
        image = ImageOps.fit(image, (wanted.width, wanted.height), Image.Resampling.BILINEAR)
    if image.size != (wanted.width, wanted.height):
        raise UserError(
            f"{name} is {image.width}×{image.height}, expected {wanted.width}×{wanted.height} like "
            "the other images: type data.presize=64 to crop and resize all of them to 64×64"
        )
    return np.asarray(image, np.uint8).reshape(wanted.height, wanted.width, wanted.channels)


@contextmanager
def reading(path: Path) -> Iterator[Image.Image]:
    """Open an image, and convert errors while its pixels are read to errors that give its path."""
    with open_image(path) as image:
        try:
            yield image
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImageError(f"cannot read the image {path}: {error}") from error


def open_image(path: Path) -> Image.Image:
    """Open a file as an image by its content.

    Raises:
        UnreadableImageError: The file is not an image, or is so large that it may be a
            decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{path} is not an image that Pillow can read: replace or delete it"
        ) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path} is rejected: {str(error).splitlines()[0]}") from error
    except (OSError, ValueError, SyntaxError) as error:  # missing, or truncated in its header
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImageError(f"cannot read the image {path}: {reason}") from error
