"""A picture of images, text, coloured boxes and curves, drawn by Pillow. Lengths are in inches.

matplotlib takes a tenth of a second for what Pillow draws in a hundredth, and every run draws such
pictures. matplotlib draws the pictures that only a report or a command needs.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from glimpse.files import replacing
from glimpse.plots.fonts import font_path
from glimpse.plots.save import COMPRESSION
from glimpse.streams import printable
from glimpse.text import cut

DPI = 128  # images of 8, 16, 32 and 64 pixels are enlarged by a whole number to an inch
POINTS = 72  # per inch
FINE = 3  # curves are drawn this many times larger, then reduced, so that their edges are smooth
DASH, GAP = 0.07, 0.035  # in a dashed curve
DOT = 0.03  # radius

Box = tuple[float, float, float, float]  # left, top, right, bottom
Colour = str | tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """A white picture to draw on, from (0, 0) in its upper left corner.

    Args:
        width: Inches.
        height: Inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self._image = Image.new("RGB", (round(width * DPI), round(height * DPI)), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._has_colours = False

    def image(self, image: Tensor, box: Box) -> None:
        """Draw an image (C, H, W) in [0, 1] to fill a box; C is 1 or 3.

        A small image is enlarged without interpolation, so that its pixels stay visible.
        """
        left, top, right, bottom = (round(side * DPI) for side in box)
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        size = (max(1, right - left), max(1, bottom - top))
        is_larger = pixels.shape[1] > size[0] or pixels.shape[0] > size[1]
        how = Image.Resampling.LANCZOS if is_larger else Image.Resampling.NEAREST
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        self._image.paste(picture.resize(size, how), (left, top))
        self._has_colours |= picture.mode != "L"

    def fill(self, box: Box, colour: Colour) -> None:
        """Fill a box."""
        left, top, right, bottom = (round(side * DPI) for side in box)
        self._draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        self._has_colours = True

    def frame(self, box: Box) -> None:
        """Draw a black line around a box."""
        self._draw.rectangle([round(side * DPI) for side in box], outline="black")

    def curve(
        self,
        points: Sequence[Point],
        colour: Colour,
        *,
        width: float = 0.01,
        is_dashed: bool = False,
        has_dots: bool = False,
    ) -> None:
        """Draw straight lines from point to point, optionally dashed or with a dot at each one."""
        left, top = (math.floor((min(part) - DOT) * DPI) for part in zip(*points, strict=True))
        right, bottom = (math.ceil((max(part) + DOT) * DPI) for part in zip(*points, strict=True))
        mask = Image.new("L", ((right - left) * FINE, (bottom - top) * FINE))
        draw = ImageDraw.Draw(mask)
        for part in _dashes(points) if is_dashed else [points]:
            places = [((x * DPI - left) * FINE, (y * DPI - top) * FINE) for x, y in part]
            draw.line(places, fill=255, width=max(1, round(width * DPI * FINE)), joint="curve")
        for x, y in points if has_dots else ():
            draw.circle(
                ((x * DPI - left) * FINE, (y * DPI - top) * FINE), DOT * DPI * FINE, fill=255
            )
        self._image.paste(colour, (left, top), mask.reduce(FINE))
        self._has_colours = True

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        anchor: str = "ls",
        angle: float = 0.0,
        is_bold: bool = False,
        colour: Colour = "black",
    ) -> None:
        """Draw a line of text.

        Args:
            x: Position of the anchor.
            y: Position of the anchor.
            text: Any text.
            size: Points.
            anchor: Pillow's name of the anchor: l, m or r for left, middle or right, and s or m for
                the baseline or the middle. A turned text takes "mm" or "rm".
            angle: Degrees, counter-clockwise, around the anchor.
            is_bold: Whether the letters are bold.
            colour: Colour of the letters.
        """
        self._has_colours |= colour != "black"
        text = printable(text)
        font = _font(font_path(text, is_bold=is_bold), size)
        place = (x * DPI, y * DPI)
        if not angle:
            self._draw.text(place, text, fill=colour, font=font, anchor=anchor)
            return
        length, height = math.ceil(font.getlength(text)), sum(font.getmetrics())
        mask = Image.new("L", (length, height))
        ImageDraw.Draw(mask).text((0, height / 2), text, fill=255, font=font, anchor="lm")
        turned = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        reach = length / 2 if anchor[0] == "r" else 0.0  # from the middle of the text to its anchor
        left = place[0] - reach * math.cos(math.radians(angle)) - turned.width / 2
        top = place[1] + reach * math.sin(math.radians(angle)) - turned.height / 2
        self._image.paste(colour, (round(left), round(top)), turned)

    def save(self, path: Path) -> None:
        """Write the picture as a PNG.

        Raises:
            UserError: the file cannot be written.
        """
        # One channel takes less than half the time of three, and so does the fastest compression.
        picture = self._image if self._has_colours else self._image.getchannel("R")
        with replacing(path, flush=False) as partial:
            picture.save(partial, compress_level=COMPRESSION)


def _dashes(points: Sequence[Point]) -> list[list[Point]]:
    """The dashes along a curve, each as a list of points."""
    dashes: list[list[Point]] = []
    part, until, is_drawn = [points[0]], DASH, True
    for (x, y), (next_x, next_y) in pairwise(points):
        length, done = math.hypot(next_x - x, next_y - y), 0.0
        while length - done > until:
            done += until
            here = (x + (next_x - x) * done / length, y + (next_y - y) * done / length)
            if is_drawn:
                dashes.append([*part, here])
            is_drawn = not is_drawn
            part, until = [here], DASH if is_drawn else GAP
        until -= length - done
        part.append((next_x, next_y))
    return [*dashes, part] if is_drawn else dashes


def text_width(text: str, *, size: float, is_bold: bool = False) -> float:
    """The width of a line of text in inches; its size is in points."""
    text = printable(text)
    return _font(font_path(text, is_bold=is_bold), size).getlength(text) / DPI


def fitted(text: str, width: float, *, size: float) -> str:
    """A line of text, cut off with "…" where it would be wider than `width` inches."""
    length = len(text)
    while length > 1 and text_width(cut(text, length), size=size) > width:
        length -= 1
    return cut(text, length)


def shades(values: np.ndarray, name: str) -> list[tuple[int, int, int]]:
    """Values in [0, 1] as colours of one of matplotlib's colour maps."""
    from matplotlib import colormaps

    return [(int(r), int(g), int(b)) for r, g, b, _ in colormaps[name](values, bytes=True)]


@cache
def _font(path: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size * DPI / POINTS)
