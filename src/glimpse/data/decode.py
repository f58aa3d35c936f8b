"""One file to pixels: by its content, whatever its mode and orientation, cut and resized if asked.

What cannot be read is an error that names the file. Nothing here imports torch: the processes that
decode start quickly.
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

DRAFT = 3  # a JPEG is decoded at a scale that leaves this many times the side it is resized to
_GREY_16_BIT = ("I;16", "I;16B", "I;16L")
_GREY = ("1", "L", *_GREY_16_BIT)  # Pillow's modes


class UnreadableImageError(UserError):
    """A file is not an image, is cut off or refused: what `data.on_bad_file=skip` leaves out."""


@dataclass(frozen=True)
class PixelFormat:
    """How files become an array: side lengths, channels, and whether images are cut to a square."""

    height: int
    width: int
    channels: int
    presize: bool


def probe(
    paths: Sequence[Path], presize: int | None, *, skip_unreadable: bool = False
) -> PixelFormat:
    """The pixel format of files, from some of them spread over the list; grey only if all are.

    Raises:
        UserError: they differ in size and no `presize` is given, or one cannot be read.
    """
    step = max(1, len(paths) // 64)
    sizes: dict[tuple[int, int], Path] = {}
    grey = True
    passed_over = (UnreadableImageError,) if skip_unreadable else ()
    for path in paths[::step]:
        with (
            suppress(*passed_over),
            reading(path) as image,
        ):  # a PNG is read whole in search of its orientation
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # by a quarter
            sizes.setdefault(image.size[::-1] if turned else image.size, path)
            grey = grey and image.mode in _GREY
    channels = 1 if grey and all(map(_is_grey, paths)) else 3
    if not sizes:
        raise UserError(f"none of {len(paths[::step])} images can be read, such as {paths[0]}")
    if presize is not None:
        return PixelFormat(presize, presize, channels, presize=True)
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise UserError(
            f"images differ in size ({one.name} is {first[0]}×{first[1]}, {other.name} "
            f"{second[0]}×{second[1]}) and make no batch: type data.presize=64 to cut and resize "
            "them to 64×64"
        )
    [(width, height)] = sizes
    return PixelFormat(height, width, channels, presize=False)


def _is_grey(path: Path) -> bool:
    """By its header; so is a file without one, until it is decoded."""
    with suppress(UnreadableImageError), open_image(path) as image:
        return image.mode in _GREY
    return True


def decode(path: Path, wanted: PixelFormat) -> NDArray[np.uint8]:
    """One file as (H, W, C) uint8, upright whatever its EXIF orientation.

    Raises:
        UserError: the file is not a readable image, or not of the wanted size.
    """
    with reading(path) as image:
        if wanted.presize:  # a JPEG many times larger is decoded at 1/2, 1/4 or 1/8 of its size
            image.draft(None, (DRAFT * wanted.width, DRAFT * wanted.height))
        return fitted(image, wanted, str(path))


def fitted(image: Image.Image, wanted: PixelFormat, name: str) -> NDArray[np.uint8]:
    """An image as (H, W, C) uint8; with `presize`, the square in its middle, resized.

    The resizing is bilinear over all the pixels that a new one covers, so that nothing flickers.

    Raises:
        UserError: it is not of the wanted size; `name` is what the message calls it.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _GREY_16_BIT:  # Pillow would clip it at 255
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    image = image.convert("L" if wanted.channels == 1 else "RGB")
    if wanted.presize:
        image = ImageOps.fit(image, (wanted.width, wanted.height), Image.Resampling.BILINEAR)
    if image.size != (wanted.width, wanted.height):
        raise UserError(
            f"{name} is {image.width}×{image.height}, others are {wanted.width}×{wanted.height}: "
            "type data.presize=64 to cut and resize all to 64×64"
        )
    return np.asarray(image, np.uint8).reshape(wanted.height, wanted.width, wanted.channels)


@contextmanager
def reading(path: Path) -> Iterator[Image.Image]:
    """An open image; what goes wrong while its pixels are read is an error that names it."""
    with open_image(path) as image:
        try:
            yield image
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImageError(f"cannot read the image {path}: {error}") from error


def open_image(path: Path) -> Image.Image:
    """Open a file as an image by its content.

    Raises:
        UnreadableImageError: it is not an image, or one so large that it may be a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{path} is not an image that can be read: replace or remove it"
        ) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path} is refused: {str(error).splitlines()[0]}") from error
    except (OSError, ValueError, SyntaxError) as error:  # not there, or cut off in its header
        reason = getattr(error, "strerror", None) or error
        raise UnreadableImageError(f"cannot read the image {path}: {reason}") from error
