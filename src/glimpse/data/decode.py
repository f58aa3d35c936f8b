"""Decode image files, by content, in any mode and orientation, and fit them to a size if wanted.

If a file cannot be read, the error message gives its path. This module does not import torch, so
that decoding processes start quickly.
"""

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from glimpse.data.depth import (
    DARKEST_WHITE,
    common_level,
    has_16_bits,
    is_deep,
    level_of,
    with_8_bits,
)
from glimpse.data.formats import USUAL_FORMATS, can_read_heif, is_heif, other_formats, register_heif
from glimpse.data.pulse import still_working
from glimpse.errors import UnreadableImageError, UserError, first_line
from glimpse.files import special_kind
from glimpse.progress_bar import tracked
from glimpse.text import plural

DRAFT = 3  # a JPEG is decoded at this many times the final side or more
REMEDY = "replace it or move it elsewhere"
SAMPLED = 64  # images, or a few more, whose pixels are read to find the format
# The errors that Pillow's decoders raise on damaged files.
_DECODING_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError,
    struct.error, zlib.error,
)  # fmt: skip
_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
Opening = AbstractContextManager[Image.Image]


class _Filters:
    """The filters of warnings while any thread reads an image.

    They belong to the whole process, so threads that each set and restored them would undo each
    other's. Therefore, the first thread sets them, and the last one restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_readers = 0
        self._before = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_readers:
                self._before.enter_context(warnings.catch_warnings())
                # Pillow's warnings of odd metadata do not name the file.
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("error", Image.DecompressionBombWarning)
            self._num_readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_readers -= 1
            if not self._num_readers:
                self._before.close()


_FILTERS = _Filters()


@dataclass(frozen=True)
class PixelFormat:
    """The format of decoded files.

    `fit` states how an image of another size or shape is fitted to height × width: "crop" keeps its
    middle, "pad" adds black borders, "squash" distorts it; None rejects it. `white` is the value of
    white in images of more than 8 bits (depth.py); None: the level of each file.
    """

    height: int
    width: int
    channels: int
    fit: str | None = None
    white: float | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels, as in the array of an image."""
        return self.height, self.width, self.channels


def probe(
    paths: Sequence[Path],
    presize: tuple[int, int] | None,
    *,
    fit: str = "crop",
    skip_unreadable: bool = False,
) -> PixelFormat:
    """Determine the pixel format of files; the arguments are those of `common_format`.

    Raises:
        UserError: also if no file in the sample can be read.
    """
    sampled = paths[:: max(1, len(paths) // SAMPLED)]
    found = common_format(
        ((str(path), reading(path)) for path in sampled),
        ((str(path), reading(path)) for path in paths),
        len(paths),
        presize,
        fit=fit,
        skip_unreadable=skip_unreadable,
    )
    if found is None:
        raise UserError(
            f"none of {len(sampled)} sampled images can be read, for example {paths[0]}: "
            "expected image files; replace them"
        )
    return found


def common_format(
    sampled: Iterable[tuple[str, Opening]],
    every: Iterable[tuple[str, Opening]],
    num_images: int,
    presize: tuple[int, int] | None,
    *,
    fit: str,
    skip_unreadable: bool,
) -> PixelFormat | None:
    """Determine the pixel format of images from a sample; None if nothing in it can be read.

    The format is grey only if all images are grey. Prints a note if images have several frames.

    Args:
        sampled: The names of some images spread over all, and what opens them.
        every: Those of all images.
        num_images: The number of all images.
        presize: Height and width to which images are fitted; None: their own.
        fit: How they are fitted: "crop", "pad" or "squash".
        skip_unreadable: Whether to ignore images that cannot be read.

    Raises:
        UserError: the images differ in size and there is no `presize`, or one in the sample cannot
            be read.
    """
    passed_over = (UnreadableImageError,) if skip_unreadable else ()
    sample = _Sample()
    for name, opening in sampled:
        with suppress(*passed_over), opening as image:
            sample.add(name, image)
    found = sample.format(presize, fit=fit)
    if found is not None and found.channels == 1:
        images = tracked(every, "looking for colour", num_images, unit="image", vanishes=True)
        for _, opening in images:
            with suppress(UnreadableImageError), opening as image:  # its decoding reports it
                if not is_grey(image):
                    return replace(found, channels=3)
    return found


class _Sample:
    """The sizes, channels and depths in a sample of a dataset's images."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, int], str] = {}  # with the name of the first image of each
        self._levels: list[float] = []
        self._highest: dict[str, float] = {}  # the highest value in images of more than 8 bits
        self._sixteen: dict[str, int] = {}  # the highest byte in images of 16 bits per channel
        self._is_grey = True
        self._several: list[str] = []  # the names of images with several pages or frames

    def add(self, name: str, image: Image.Image) -> None:
        """Add an opened image; call this inside `reading`."""
        if has_several_frames(image):
            self._several.append(name)
        if has_16_bits(image):
            self._sixteen[name] = int(np.asarray(image.convert("RGB")).max())
        # Pillow reads a whole PNG to find its orientation. It rotates a TIFF itself, and reports
        # the rotated size.
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5 and image.format != "TIFF"
        self._sizes.setdefault(image.size[::-1] if turned else image.size, name)
        self._is_grey = self._is_grey and is_grey(image)
        if is_deep(image.mode):
            self._levels.append(level_of(image, name))
            self._highest[name] = float(np.asarray(image).max())

    def format(self, presize: tuple[int, int] | None, *, fit: str) -> PixelFormat | None:
        """Return the format of these images, grey if all are; None without images.

        Raises:
            UserError: the images differ in size and there is no `presize`, or they would all be
                black, because they use only the lower of their bits.
        """
        if not self._sizes:
            return None
        if self._sixteen and 0 < max(self._sixteen.values()) < DARKEST_WHITE:
            raise UserError(
                f"{next(iter(self._sixteen))} has 16 bits per channel, but no image sampled uses more than 12 "
                "of them, so all would be black: save the images with 8 bits, with white at 255"
            )
        if self._several:
            number = plural(len(self._several), "sampled image")
            print(
                f"note: {number} with several pages or frames, such as {_end_of(self._several[0])}; only the "
                "first of each is used",
                flush=True,
            )
        channels, white = 1 if self._is_grey else 3, common_level(self._levels)
        if white and 0 < 255 * max(self._highest.values()) < DARKEST_WHITE * white:
            brightest = max(self._highest, key=self._highest.__getitem__)
            raise UserError(
                f"{brightest} has the highest value of the images sampled, {self._highest[brightest]:g}, but white "
                f"is {white:g}, so all would be black: save the images with 8 bits, with white at 255"
            )
        if presize is not None:
            height, width = presize
            return PixelFormat(height, width, channels, fit, white)
        if len(self._sizes) > 1:
            (first, one), (second, other) = list(self._sizes.items())[:2]
            raise UserError(
                f"images differ in size ({_end_of(one)} is {first[0]}×{first[1]}, "
                f"{_end_of(other)} is {second[0]}×{second[1]}), expected one size: type "
                "data.presize=64 to crop and resize all of them to 64×64"
            )
        [(width, height)] = self._sizes
        return PixelFormat(height, width, channels, white=white)


def _end_of(path: str) -> str:
    """The name of a file and of its folder, which is often its class."""
    return os.sep.join(path.split(os.sep)[-2:])


def has_several_frames(image: Image.Image) -> bool:
    """Whether only a part of a file is read: the first page or frame.

    The further pictures in a phone's JPEG (MPO) are previews.
    """
    return image.format != "MPO" and getattr(image, "n_frames", 1) > 1


def is_grey(image: Image.Image) -> bool:
    """Whether an image has one channel."""
    return image.mode in ("1", "L") or is_deep(image.mode)


def decode(path: Path, wanted: PixelFormat) -> NDArray[np.uint8]:
    """Decode a file to (H, W, C) uint8, upright according to its EXIF orientation.

    Raises:
        UserError: the file is not a readable image, or does not have the wanted size.
    """
    with reading(path) as image:
        return decoded(image, wanted, str(path))


def decoded(image: Image.Image, wanted: PixelFormat, name: str) -> NDArray[np.uint8]:
    """Decode an image file that has been opened inside `reading`; the rest is as in `fitted`."""
    if wanted.fit:  # decode a much larger JPEG at 1/2, 1/4 or 1/8 of its size
        side = DRAFT * max(wanted.width, wanted.height)  # EXIF may turn it
        image.draft(None, (side, side))
    return fitted(image, wanted, name)


def fitted(image: Image.Image, wanted: PixelFormat, name: str) -> NDArray[np.uint8]:
    """Convert an image to (H, W, C) uint8 of the wanted size, upright.

    Transparent pixels become white, as on a page, because the colours that they hide are often
    black. The resizing is bilinear with antialiasing: it averages all pixels that a new pixel
    covers.

    Raises:
        UserError: the image does not have the wanted size, and `wanted.fit` is None; the message
            uses `name`.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.has_transparency_data and not is_deep(image.mode):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if is_deep(image.mode):  # Pillow would clip values at 255
        image = with_8_bits(image, wanted.white, name)
    image = image.convert("L" if wanted.channels == 1 else "RGB")
    size = (wanted.width, wanted.height)
    if wanted.fit == "crop":
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    elif wanted.fit == "pad":
        image = _padded(image, size)
    elif wanted.fit == "squash":
        image = image.resize(size, Image.Resampling.BILINEAR)
    if image.size != size:
        raise UserError(
            f"{name} is {image.width}×{image.height}, expected {wanted.width}×{wanted.height} like "
            "the other images: type data.presize=64 to crop and resize all of them to 64×64"
        )
    return np.asarray(image, np.uint8).reshape(wanted.shape)


def _padded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Add black borders. ImageOps.pad loses an image whose shorter side would round to 0 pixels."""
    scale = min(size[0] / image.width, size[1] / image.height)
    if min(image.size) * scale < 1:
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        image = image.resize(inner, Image.Resampling.BILINEAR)
    return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=0)


@contextmanager
def reading(file: Path | io.BytesIO, *, name: str = "") -> Iterator[Image.Image]:
    """Open an image, and turn errors in reading its pixels into errors that name the image.

    Args:
        file: The path of a file, or its content.
        name: The name of the image in errors; by default its path.

    Raises:
        UnreadableImageError: the image cannot be read.
    """
    name = name or str(file)
    with (
        _FILTERS,
        open_image(file) if isinstance(file, Path) else _from_memory(file, name) as image,
    ):
        try:
            yield image
        except (*_DECODING_ERRORS, *_BOMBS) as error:
            raise UnreadableImageError(
                f"cannot read the image {name}: {str(error) or type(error).__name__}; {REMEDY}"
            ) from error
        finally:
            still_working()


def _from_memory(content: io.BytesIO, name: str) -> Image.Image:
    try:
        return _identified(content)
    except (*_DECODING_ERRORS, *_BOMBS) as error:
        raise UnreadableImageError(
            f"{name} is not an image that can be read: replace it"
        ) from error


def open_image(path: Path) -> Image.Image:
    """Open a file as an image by its content.

    Raises:
        UnreadableImageError: the file is not an image, is not a file at all (a pipe would make its
            reader wait for ever), or is so large that it may be a decompression bomb.
    """
    try:
        kind = special_kind(os.stat(path).st_mode)
        if kind is not None:
            raise UnreadableImageError(
                f"{path} is {kind}, expected an image file: move it elsewhere"
            )
        try:
            return _identified(path)
        except UnidentifiedImageError:
            if not (is_heif(path) and can_read_heif()):
                raise
            register_heif()
            return _identified(path)
    except UnidentifiedImageError as error:
        if is_heif(path) and not can_read_heif():
            raise UnreadableImageError(
                f"{path} contains an HEIC image: type pip install pillow-heif to read it"
            ) from error
        raise UnreadableImageError(
            f"{path} is not an image that Pillow can read: {REMEDY}"
        ) from error
    except _BOMBS as error:
        raise UnreadableImageError(f"{path} is rejected: {first_line(error)}; {REMEDY}") from error
    except _DECODING_ERRORS as error:  # missing, or truncated in its header
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = "restore it" if isinstance(error, FileNotFoundError) else REMEDY
        raise UnreadableImageError(f"cannot read the image {path}: {reason}; {remedy}") from error


def _identified(path: Path | io.BytesIO) -> Image.Image:
    with _FILTERS:
        try:
            image = Image.open(path, formats=USUAL_FORMATS)
        except UnidentifiedImageError:
            image = Image.open(path, formats=other_formats())
    if image.format == "TIFF":  # Pillow 13 memory-maps a rotated TIFF as if it were stored upright
        image.filename = ""  # without a name, it reads the file instead
    return image
