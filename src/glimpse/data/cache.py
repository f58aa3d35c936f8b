"""Every image decoded once, into one uint8 array on disk that later runs map.

The array of a part is (N, H, W, C) uint8 in `<data_dir>/.cache/<dataset>-<fingerprint>/`, beside
its labels and the histogram of its pixels; the fingerprint is a quick look at names, sizes and times,
and what the content is says the identity stored within (identity.py). A cache is written to a temporary name and renamed, under
a lock, so that an interrupted or a second process never leaves or sees half of one.

Nothing here imports torch: the processes that decode start quickly.
"""

import errno
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from glimpse.data.decode import PixelFormat, UnreadableImageError, decode
from glimpse.data.identity import identity as identity_of
from glimpse.data.identity import mark
from glimpse.data.pixel_statistics import histogram
from glimpse.data.processes import decoding_context, ended_unexpectedly
from glimpse.data.spec import Arrays, Files, Part, Source
from glimpse.errors import UserError

FORMAT = 3  # raise it when the meaning of a cache's files changes
CHUNK = 512  # images a decoding process takes at a time
SMALL_CHUNK = 32  # images between two steps of the progress bar where there is only one
_Result = TypeVar("_Result")
IDENTITY = "identity.txt"  # in a cache: of the content that it was made from
UNREADABLE = "unreadable.txt"  # in a cache: a line on each file that was left out
_ELSEWHERE = "type data.cache=false, or data_dir=<a folder with room that you may write>"


@dataclass(frozen=True)
class Stored:
    """A part whose images are one array.

    `images` is (N, H, W, C) uint8, mapped or in memory; `labels` is (N,) int64; `histogram` is
    (C, 256), how often each value occurs in each channel.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    histogram: NDArray[np.int64]


def fingerprint(root: Path | str, files: Iterable[Path | str], *settings: object) -> str:
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


def identity(folder: Path) -> str:
    """Of the content that the cache in `folder` was made from.

    Raises:
        UserError: the cache does not say.
    """
    file = folder / IDENTITY
    found = file.read_text(errors="replace") if file.is_file() else ""
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise UserError(
            f"{file} is missing or damaged: delete the folder {folder} to decode all images again"
        )
    return found


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
        parts: dict[str, Part] = {}  # as they are stored
        marks: dict[str, list[bytes]] = {}
        for name, part in source.parts().items():
            file, labels = partial / f"{name}.npy", part.labels.astype(np.int64)
            if isinstance(part, Arrays):
                np.save(file, part.images)
                counts = histogram(part.images)
                parts[name] = part
            else:
                wanted = pixel_format(source)
                counts, marks[name], bad = _store(file, part, wanted, num_workers, skip_unreadable)
                paths = [path for row, path in enumerate(part.paths) if row not in bad]
                if bad:
                    kept = np.delete(np.arange(len(labels)), list(bad))
                    labels = _without(file, labels, bad, kept, source.class_names)
                    np.save(partial / f"{name}-kept.npy", kept)
                    reasons += [bad[row] for row in sorted(bad)]
                parts[name] = Files(paths, labels)
            np.save(partial / f"{name}-labels.npy", labels)
            np.save(partial / f"{name}-histogram.npy", counts)
        (partial / IDENTITY).write_text(identity_of(source.class_names, parts, marks))
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
) -> tuple[NDArray[np.int64], list[bytes], dict[int, str]]:
    """Write a part's array; returns the histogram of its pixels, the marks of the files that are in
    it, and why which rows are empty."""
    shape = (len(part.paths), wanted.height, wanted.width, wanted.channels)
    np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
    if hasattr(os, "posix_fallocate"):  # a disk that is full is an error now, later a crash
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    print(f"decoding {len(part.paths):,} images once into {file.parent.parent}", flush=True)
    decode_chunk = partial(_decode_chunk, file, wanted, skip_unreadable)
    counts = np.zeros((wanted.channels, 256), np.int64)
    marks: list[bytes] = []
    bad: dict[int, str] = {}
    with file.open("r+b") as opened:
        for found, seen, empty in each_chunk(decode_chunk, part.paths, num_workers=num_workers):
            counts += found
            marks += seen
            bad |= empty
            os.fsync(opened.fileno())  # here, where the processes that decode need not wait for it
    return counts, marks, bad


def each_chunk(
    function: Callable[[Sequence[Path], int], _Result], paths: Sequence[Path], *, num_workers: int
) -> Iterator[_Result]:
    """`function(files, number of the first)` of each chunk of files, in order, in `num_workers`
    processes, with a progress bar.

    Raises:
        UserError: a process ended unexpectedly.
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
    context = decoding_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin_decoding) as pool, progress:
        try:
            for chunk, result in zip(chunks, pool.map(function, chunks, starts), strict=True):
                yield result
                progress.update(len(chunk))
        except BrokenProcessPool as error:
            raise ended_unexpectedly() from error
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
) -> tuple[NDArray[np.int64], list[bytes], dict[int, str]]:
    """Fill the rows from `start` on; returns their histogram, the marks of the files in them, and why
    which stay empty."""
    array = np.lib.format.open_memmap(file, "r+")
    filled, marks, bad = [], [], {}
    for row, path in enumerate(paths, start):
        try:
            array[row] = decode(path, wanted)
            marks.append(mark(path))
            filled.append(row)
        except UnreadableImageError as error:
            if not skip_unreadable:
                raise
            bad[row] = str(error)
    return histogram(array, np.array(filled, np.int64)), marks, bad


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
