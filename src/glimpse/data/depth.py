"""Grey images of more than 8 bits: one rule that brings them to 8.

Files of 16-bit integers (of either byte order), 32-bit integers and floats do not say which value
is white. Many cameras and scanners use only a part of the range: 12 bits of 16, or floats up to 1.
White is therefore the lowest of a few usual levels that no value exceeds: 255, 4095, 65535 or
2147483647 for integers, and 1, 255 or 65535 for floats. Rounding may put values a little above it.
Black is 0. A dataset has one such level for all of its images, so that equal values stay equal. A
file that the rule does not fit (negative values, values that are not finite, or a higher level than
the dataset's) is rejected, and the error names it. So is a dataset whose images would all be black.

Left out: colour images of 16 bits. Pillow reads the upper 8 bits of each channel. If these are all
nearly 0, the images are rejected.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from glimpse.errors import UnreadableImageError

LEVELS_OF_INTEGERS = (255, 4095, 65535, 2**31 - 1)
LEVELS_OF_FLOATS = (1.0, 255.0, 65535.0)
ROUNDING = 1.001  # values up to this multiple of a level become white
DARKEST_WHITE = 16  # of 255; images that never reach it would all be black
PHOTOMETRIC = 262  # the tag of a TIFF that states whether 0 is black


def is_deep(mode: str) -> bool:
    """Whether an image of this mode of Pillow is grey with more than 8 bits."""
    return mode == "F" or mode[0] == "I"


def has_16_bits(image: Image.Image) -> bool:
    """Whether Pillow keeps the upper 8 of the 16 bits in each channel of an opened image.

    Call this before the pixels are read.
    """
    tiles = getattr(image, "tile", [])  # only an image that was opened has them
    return any(";16" in str(tile.args) for tile in tiles) and not is_deep(image.mode)


def level_of(image: Image.Image, name: str) -> float:
    """Return the level of an image's brightest value; a float for an image of floats.

    Raises:
        UnreadableImageError: a value is negative, not finite or above every level.
    """
    if image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        raise UnreadableImageError(
            f"{name} has more than 8 bits and its white is 0 (PhotometricInterpretation): save it with black "
            "at 0"
        )
    values = np.asarray(image)
    lowest, highest = values.min(), values.max()
    is_float = values.dtype.kind == "f"
    levels = LEVELS_OF_FLOATS if is_float else LEVELS_OF_INTEGERS
    above = [level for level in levels if highest <= ROUNDING * level]  # empty if it is nan
    if not (lowest >= 0 and above):
        raise UnreadableImageError(
            f"{name} has values from {lowest:g} to {highest:g}, expected 0 to {levels[-1]:g}: "
            "save it with 8 bits, with black at 0 and white at 255"
        )
    return above[0]


def common_level(levels: Iterable[float]) -> float | None:
    """Return the level for a dataset; None if it has no deep image, or both integers and floats."""
    found = set(levels)
    kinds = {isinstance(level, float) for level in found}
    return max(found) if len(kinds) == 1 else None


def with_8_bits(image: Image.Image, white: float | None, name: str) -> Image.Image:
    """Return a deep image as grey with 8 bits.

    Args:
        image: An image for which `is_deep` holds.
        white: The value that becomes 255. If it is None or has another type than the image's
            values, the image's own level becomes 255.
        name: The file, for the error message.

    Raises:
        UnreadableImageError: the image has values that the rule does not cover.
    """
    own = level_of(image, name)
    if white is None or isinstance(white, float) != isinstance(own, float):
        white = own
    if own > white:
        raise UnreadableImageError(
            f"{name} has values above {white:g}, but the images sampled from the dataset have none: "
            "save the images with 8 bits, with black at 0 and white at 255, or type data.on_bad_file=skip to "
            "leave it out"
        )
    values = np.asarray(image)
    if isinstance(white, int):
        scaled = np.right_shift(values.astype(np.int64), white.bit_length() - 8)
    else:
        scaled = (values * (255 / white)).round()
    return Image.fromarray(np.minimum(scaled, 255).astype(np.uint8))
