"""Every image decoded once, into one uint8 array on disk that later runs map.

The array of a part is (N, H, W, C) uint8 in `<data_dir>/.cache/<dataset>-<fingerprint>/`, beside
its labels and the histogram of its pixels. A cache is written to a temporary name and renamed, under
a lock, so that an interrupted or a second process never leaves or sees half of one.

Nothing here imports torch: the processes that decode start quickly.
"""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from glimpse.data.spec import Arrays, Files, Part, Source
from glimpse.errors import UserError

FORMAT = 2  # raise it when the meaning of a cache's files changes
CHUNK = 512  # images a decoding process takes at a time
SMALL_CHUNK = 32  # images between two steps of the progress bar where there is only one
DRAFT = 3  # a JPEG is decoded at a scale that leaves this many times the side it is resized to
_Result = TypeVar("_Result")
UNREADABLE = "unreadable.txt"  # in a cache: a line on each file that was left out
_ELSEWHERE = "type data.cache=false, or data_dir=<a folder with room that you may write>"
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


@dataclass(frozen=True)
class Stored:
    """A part whose images are one array.

    `images` is (N, H, W, C) uint8, mapped or in memory; `labels` is (N,) int64; `histogram` is
    (C, 256), how often each value occurs in each channel.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    histogram: NDArray[np.int64]


def fingerprint(root: Path, files: Iterable[Path | str], *settings: object) -> str:
    """A key for files (names below `root`, sizes, times of change) and settings; 16 hexadecimal
    digits. It stays the same where the whole folder moves.

    Raises:
        UserError: a file is missing.
    """
    digest = hashlib.sha256(repr((FORMAT, *settings)).encode())
    prefix = str(root)
    for path in files:
        name = str(path)  # pathlib's own stat and relative_to take a second for 100,000 files
        try:
            status = os.stat(name)
        except FileNotFoundError as error:
            raise UserError(
                f"{path} is missing, though the dataset lists it: put it back, or remove the "
                "dataset's folder to unpack it again"
            ) from error
        digest.update(
            f"{name.removeprefix(prefix)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
        )
    return digest.hexdigest()[:16]


def in_memory(source: Source) -> dict[str, Stored]:
    """The parts of a source that holds pixels, without a file."""
    stored = {}
    for name, part in source.parts().items():
        assert isinstance(part, Arrays)
        stored[name] = Stored(part.images, part.labels, histogram(part.images))
    return stored


def load_or_build(
    folder: Path,
    read: Callable[[], Source],
    pixel_format: Callable[[Source], PixelFormat],
    *,
    num_workers: int,
    skip_unreadable: bool = False,
) -> tuple[tuple[str, ...], dict[str, Stored]]:
    """Map the cache in `folder`, making it first where it is not there.

    Args:
        folder: where this fingerprint's arrays lie.
        read: the dataset's reader; called only when there is no cache.
        pixel_format: what the arrays of files look like; called likewise.
        num_workers: processes that decode.
        skip_unreadable: leave out files that cannot be read; `unreadable` lists them.

    Returns:
        The class names, and each part of the dataset.

    Raises:
        UserError: an image cannot be read (its path is named), or the folder cannot be written.
    """
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    _build(folder, read(), pixel_format, num_workers, skip_unreadable)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise UserError(
                f"cannot write the cache {folder}: {error.strerror}; {_ELSEWHERE}"
            ) from error
    names = tuple(json.loads((folder / "class_names.json").read_text()))
    parts = [p for p in ("train", "heldout", "test") if (folder / f"{p}.npy").exists()]
    return names, {name: _map(folder, name) for name in parts}


def unreadable(folder: Path) -> list[str]:
    """A line on each file that the cache in `folder` left out."""
    listed = folder / UNREADABLE
    return listed.read_text().splitlines() if listed.exists() else []


def kept_rows(folder: Path, part: str) -> NDArray[np.int64] | None:
    """Which rows of a source's part the cache in `folder` holds; None for all."""
    file = folder / f"{part}-kept.npy"
    return np.load(file) if file.exists() else None


def _map(folder: Path, name: str) -> Stored:
    # Copy-on-write: torch wants a writable array, and nobody writes, so no page is ever copied.
    images = np.load(folder / f"{name}.npy", mmap_mode="c")
    labels = np.load(folder / f"{name}-labels.npy")
    return Stored(images, labels, np.load(folder / f"{name}-histogram.npy"))


def _build(
    folder: Path,
    source: Source,
    pixel_format: Callable[[Source], PixelFormat],
    num_workers: int,
    skip_unreadable: bool,
) -> None:
    for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(leftover)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        reasons: list[str] = []
        for name, part in source.parts().items():
            file, labels = partial / f"{name}.npy", part.labels.astype(np.int64)
            if isinstance(part, Arrays):
                np.save(file, part.images)
                counts = histogram(part.images)
            else:
                wanted = pixel_format(source)
                counts, bad = _store(file, part, wanted, num_workers, skip_unreadable)
                if bad:
                    kept = np.delete(np.arange(len(labels)), list(bad))
                    labels = _without(file, labels, bad, kept, source.class_names)
                    np.save(partial / f"{name}-kept.npy", kept)
                    reasons += [bad[row] for row in sorted(bad)]
            np.save(partial / f"{name}-labels.npy", labels)
            np.save(partial / f"{name}-histogram.npy", counts)
        if reasons:
            (partial / UNREADABLE).write_text("\n".join(reasons) + "\n")
        (partial / "class_names.json").write_text(json.dumps(source.class_names))
        partial.rename(folder)
    except OSError as error:
        raise UserError(
            f"cannot write the cache {folder}: {error.strerror}; {_ELSEWHERE}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _store(
    file: Path, part: Files, wanted: PixelFormat, num_workers: int, skip_unreadable: bool
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Write a part's array; returns the histogram of its pixels, and why which rows are empty."""
    shape = (len(part.paths), wanted.height, wanted.width, wanted.channels)
    np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
    if hasattr(os, "posix_fallocate"):  # a disk that is full is an error now, later a crash
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    print(f"decoding {len(part.paths):,} images once into {file.parent.parent}", flush=True)
    decode_chunk = partial(_decode_chunk, file, wanted, skip_unreadable)
    counts = np.zeros((wanted.channels, 256), np.int64)
    bad: dict[int, str] = {}
    with file.open("r+b") as opened:
        for found, empty in each_chunk(decode_chunk, part.paths, num_workers=num_workers):
            counts += found
            bad |= empty
            os.fsync(opened.fileno())  # here, where the processes that decode need not wait for it
    return counts, bad


def each_chunk(
    function: Callable[[Sequence[Path], int], _Result], paths: Sequence[Path], *, num_workers: int
) -> Iterator[_Result]:
    """`function(files, number of the first)` of each chunk of files, in order, in `num_workers`
    processes, with a progress bar.

    Raises:
        UserError: a process was killed.
    """
    workers = max(1, min(num_workers, -(-len(paths) // CHUNK)))
    alone = workers == 1  # starting a process would take longer than a few images
    starts = range(0, len(paths), SMALL_CHUNK if alone else CHUNK)
    chunks = [paths[start : start + starts.step] for start in starts]
    progress = tqdm(total=len(paths), unit="image", disable=None)
    if alone:
        with progress:
            for chunk, start in zip(chunks, starts, strict=True):
                yield function(chunk, start)
                progress.update(len(chunk))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin_decoding) as pool, progress:
        try:
            for chunk, result in zip(chunks, pool.map(function, chunks, starts), strict=True):
                yield result
                progress.update(len(chunk))
        except BrokenProcessPool as error:
            raise UserError("a decoding process was killed (out of memory?); run again") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_decoding() -> None:
    """In a decoding process: the run answers Ctrl-C, and when it is killed so is this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal
    run = multiprocessing.parent_process()
    assert run is not None

    def end_with_it() -> None:
        run.join()
        os._exit(1)  # it waits for work that nobody will send

    threading.Thread(target=end_with_it, daemon=True).start()


def _decode_chunk(
    file: Path, wanted: PixelFormat, skip_unreadable: bool, paths: Sequence[Path], start: int
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Fill the rows from `start` on; returns their histogram, and why which stay empty."""
    array = np.lib.format.open_memmap(file, "r+")
    filled, bad = [], {}
    for row, path in enumerate(paths, start):
        try:
            array[row] = decode(path, wanted)
            filled.append(row)
        except UnreadableImageError as error:
            if not skip_unreadable:
                raise
            bad[row] = str(error)
    return histogram(array, np.array(filled, np.int64)), bad


def _without(
    file: Path,
    labels: NDArray[np.int64],
    bad: dict[int, str],
    kept: NDArray[np.int64],
    class_names: Sequence[str],
) -> NDArray[np.int64]:
    """Write an array again without its empty rows; returns the labels of those that stay.

    Raises:
        UserError: no image of a class is left.
    """
    lost = np.setdiff1d(labels, labels[kept])
    if len(lost):
        first = next(reason for row, reason in sorted(bad.items()) if labels[row] == lost[0])
        raise UserError(
            f"no image of the class {class_names[lost[0]]} can be read; the first: {first}"
        )
    images = np.load(file, mmap_mode="r")
    shorter = file.with_suffix(".short")
    array = np.lib.format.open_memmap(shorter, "w+", np.uint8, (len(kept), *images.shape[1:]))
    for start in range(0, len(kept), CHUNK):
        array[start : start + CHUNK] = images[kept[start : start + CHUNK]]
    array.flush()
    shorter.replace(file)
    return labels[kept]


def histogram(
    images: NDArray[np.uint8], rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """How often each value occurs in each channel of (N, H, W, C) uint8 images, or of the chosen
    rows of them, a few at a time: (C, 256)."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images if rows is None else rows), CHUNK):
        chosen = slice(start, start + CHUNK)
        some = images[chosen] if rows is None else images[rows[chosen]]
        strip = some.reshape(-1, some.shape[2], channels)  # one tall image; Pillow counts it faster
        found = Image.fromarray(strip[..., 0] if channels == 1 else strip).histogram()
        counts += np.reshape(found, (channels, 256))
    return counts


def statistics(counts: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels scaled to [0, 1], from a histogram."""
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    variance = shares @ values**2 - mean**2
    std = np.sqrt(np.maximum(variance, 1e-12))
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


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


def check_labels(part: Part, num_classes: int, what: str) -> None:
    """Every image has a label, and every label is the index of a class.

    Raises:
        UserError: giving both numbers, or naming the first label that is not.
    """
    num_images = len(part.paths if isinstance(part, Files) else part.images)
    if len(part.labels) != num_images:
        raise UserError(f"there are {num_images:,} {what} images but {len(part.labels):,} labels")
    wrong = np.flatnonzero((part.labels < 0) | (part.labels >= num_classes))
    if len(wrong):
        row = int(wrong[0])
        where = part.paths[row] if isinstance(part, Files) else f"row {row} of the {what} images"
        raise UserError(
            f"{where} has the label {part.labels[row]}: expected 0 to {num_classes - 1}"
        )
