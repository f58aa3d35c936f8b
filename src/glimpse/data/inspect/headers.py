"""Parallel inspection of a dataset's files: their headers, and whether they decode.

The headers show whether the content of a file matches its name. `glimpse data info` and `glimpse
data check` use this module. It does not import torch, so that the processes that open files start
quickly.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image

from glimpse.data.decode import PixelFormat, decode, has_several_frames, reading
from glimpse.data.processes import each_chunk
from glimpse.errors import UserError
from glimpse.text import as_utf8

NUM_EXAMPLES = 3


class Header(NamedTuple):
    """The header of a file.

    It states the format ("JPEG"), Pillow's mode ("RGB"), the stored width and height in pixels,
    whether EXIF asks to rotate or mirror the image, and whether there are several pages or frames.
    """

    format: str
    mode: str
    size: tuple[int, int]
    turned: bool
    several: bool


@dataclass(frozen=True)
class Odd:
    """Files with the same irregularity: their number, and the first of them."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class FileFacts:
    """Facts about a dataset's files: counts by format and mode, sizes (width, height),
    irregularities.

    Irregularities are content that does not match the file extension, modes other than grey and
    RGB, images that EXIF rotates or mirrors, and files with several pages or frames.
    """

    formats: dict[str, int]
    modes: dict[str, int]
    num_sizes: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    odd: dict[str, Odd]


def header(path: Path) -> Header:
    """Read the header of a file, without decoding its pixels if the format allows it.

    Raises:
        UserError: the file is not an image.
    """
    with reading(path) as image:  # the orientation may be stored after the pixels
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        several = has_several_frames(image)
        return Header(str(image.format), image.mode, image.size, turned, several)


def file_facts(paths: Sequence[Path], *, num_workers: int) -> FileFacts:
    """Open every file and count formats, modes, sizes and irregularities.

    Raises:
        UserError: a file is not an image.
    """
    formats, modes, sizes = Counter[str](), Counter[str](), Counter[tuple[int, int]]()
    odd: dict[str, list[str]] = {}
    counts = Counter[str]()
    names = Image.registered_extensions()
    headers = (h for chunk in each_chunk(_headers, paths, num_workers=num_workers) for h in chunk)
    for path, found in zip(paths, headers, strict=True):
        formats[found.format] += 1
        modes[found.mode] += 1
        sizes[found.size] += 1
        for what in _oddities(path.suffix, found, names.get(path.suffix.lower())):
            counts[what] += 1
            if counts[what] <= NUM_EXAMPLES:
                odd.setdefault(what, []).append(as_utf8(path))
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return FileFacts(
        formats=dict(formats.most_common()),
        modes=dict(modes.most_common()),
        num_sizes=len(sizes),
        smallest=by_area[0],
        largest=by_area[-1],
        odd={what: Odd(counts[what], tuple(examples)) for what, examples in odd.items()},
    )


def _headers(paths: Sequence[Path], _start: int) -> list[Header]:
    return [header(path) for path in paths]


def _oddities(ending: str, found: Header, expected: str | None) -> Iterator[str]:
    # Phones write several pictures into one JPEG and name it .jpg or .mpo; both are valid.
    actual, named = ("JPEG" if name == "MPO" else name for name in (found.format, expected))
    if named is not None and actual != named:
        yield f"{found.format} named {ending}"
    if found.mode not in ("L", "RGB"):
        yield f"with mode {found.mode}"
    if found.turned:
        yield "rotated or mirrored by EXIF"
    if found.several:
        yield "with several pages or frames, of which the first is used"


def broken_files(
    paths: Sequence[Path], wanted: PixelFormat | None, *, num_workers: int
) -> Iterator[str]:
    """Decode every file once, and yield the error message of each file that fails.

    `wanted` is the required format; None accepts any.
    """
    check = partial(_failures, wanted or PixelFormat(1, 1, 3, fit="crop"))
    for lines in each_chunk(check, paths, num_workers=num_workers):
        yield from lines


def _failures(wanted: PixelFormat, paths: Sequence[Path], _start: int) -> list[str]:
    lines = []
    for path in paths:
        try:
            decode(path, wanted)
        except UserError as error:
            lines.append(as_utf8(error))
    return lines
