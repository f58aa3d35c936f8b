"""The cache: each image is decoded once into a uint8 array on disk, which later runs memory-map.

The array of a part is (N, H, W, C) uint8 in `<data_dir>/.cache/<dataset>-<fingerprint>/`, next to
its labels and the histogram of its pixels. The fingerprint is computed quickly from names, sizes
and modification times; the identity stored in the cache describes the content itself (identity.py).
A cache is written under a temporary name and then renamed, under a lock, so that an interrupted
process never leaves a partial cache and a second process never sees one.

This module does not import torch, so that decoding processes start quickly.
"""

import errno
import hashlib
import json
import multiprocessing
import os
import re
import shutil
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
from glimpse.data.processes import decoding_context, ended_unexpectedly, leave_stops_to_the_run
from glimpse.data.spec import Arrays, Files, Part, Source
from glimpse.errors import UserError

FORMAT = 3  # increase it when the meaning of a cache's files changes
CHUNK = 512  # images that a decoding process receives at a time
SMALL_CHUNK = 32  # images per step of the progress bar if there is only one process
_Result = TypeVar("_Result")
IDENTITY = "identity.txt"  # in a cache: the identity of its source content
UNREADABLE = "unreadable.txt"  # in a cache: one line for each skipped file
_ELSEWHERE = "type data.cache=false, or data_dir=<a writable folder with enough space>"


@dataclass(frozen=True)
class Stored:
    """A part whose images are stored in one array.

    `images` is (N, H, W, C) uint8, memory-mapped or in memory. `labels` is (N,) int64. `histogram`
    is (C, 256), the number of times that each value occurs in each channel.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    histogram: NDArray[np.int64]


def fingerprint(root: Path | str, files: Iterable[Path | str], *settings: object) -> str:
    """Return a key of 16 hexadecimal digits for files and settings.

    For each file, the name below `root`, the size and the modification time count. The key stays
    the same if the whole folder moves.

    Raises:
        UserError: A file is missing.
    """
    digest = hashlib.sha256(repr((FORMAT, *settings)).encode())
    prefix = str(root)
    for path in files:
        name = str(path)  # pathlib's stat and relative_to take a second for 100,000 files
        try:
            status = os.stat(name)
        except FileNotFoundError as error:
            raise UserError(
                f"{path} is missing, but the dataset lists it: restore it, or delete the "
                "dataset's folder to unpack it again"
            ) from error
        digest.update(
            f"{name.removeprefix(prefix)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode()
        )
    return digest.hexdigest()[:16]


def in_memory(source: Source) -> dict[str, Stored]:
    """Return the parts of a source of pixels, without writing files."""
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
    """Memory-map the cache in `folder`, building it first if it does not exist.

    Args:
        folder: The cache folder for this fingerprint.
        read: The dataset's reader; called only if there is no cache.
        pixel_format: Returns the format of the arrays made from files; called only if there is no
            cache.
        num_workers: Number of decoding processes.
        skip_unreadable: Whether to skip files that cannot be read; `unreadable` lists them.

    Returns:
        The class names, and each part of the dataset.

    Raises:
        UserError: An image cannot be read (the message gives its path), or the folder is not
            writable.
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
    """Return one line for each file that the cache in `folder` skipped."""
    listed = folder / UNREADABLE
    return listed.read_text().splitlines() if listed.exists() else []


def identity(folder: Path) -> str:
    """Return the identity of the content from which the cache in `folder` was made.

    Raises:
        UserError: The cache does not contain a valid identity.
    """
    file = folder / IDENTITY
    found = file.read_text(errors="replace") if file.is_file() else ""
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise UserError(
            f"{file} is missing or damaged: delete the folder {folder} to decode all images again"
        )
    return found


def kept_rows(folder: Path, part: str) -> NDArray[np.int64] | None:
    """Return the rows of a source's part that the cache in `folder` contains; None for all."""
    file = folder / f"{part}-kept.npy"
    return np.load(file) if file.exists() else None


def _map(folder: Path, name: str) -> Stored:
    # Copy-on-write: torch requires a writable array, but nothing writes, so no page is ever copied.
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
        parts: dict[str, Part] = {}  # as stored
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
    """Write the array of a part.

    Returns:
        The histogram of its pixels, the marks of the decoded files, and the reason for each empty
        row.
    """
    shape = (len(part.paths), wanted.height, wanted.width, wanted.channels)
    np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
    if hasattr(os, "posix_fallocate"):  # report a full disk now; a later write would crash
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
            os.fsync(opened.fileno())  # here, so that decoding processes need not wait for it
    return counts, marks, bad


def each_chunk(
    function: Callable[[Sequence[Path], int], _Result], paths: Sequence[Path], *, num_workers: int
) -> Iterator[_Result]:
    """Yield `function(files, index of the first)` for each chunk of files, in order.

    The function runs in `num_workers` processes, with a progress bar.

    Raises:
        UserError: A process ended unexpectedly.
    """
    workers = max(1, min(num_workers, -(-len(paths) // CHUNK)))
    alone = workers == 1  # a few images take less time than starting a process
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
    """Set up a decoding process: ignore Ctrl-C, which the run handles, and end with the run."""
    leave_stops_to_the_run()
    run = multiprocessing.parent_process()
    assert run is not None

    def end_with_it() -> None:
        run.join()
        os._exit(1)  # the process is waiting for work that will never arrive

    threading.Thread(target=end_with_it, daemon=True).start()


def _decode_chunk(
    file: Path, wanted: PixelFormat, skip_unreadable: bool, paths: Sequence[Path], start: int
) -> tuple[NDArray[np.int64], list[bytes], dict[int, str]]:
    """Decode files into the rows from `start` on.

    Returns:
        The histogram of these rows, the marks of the decoded files, and the reason for each empty
        row.
    """
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
    """Rewrite an array without its empty rows, and return the labels of the remaining rows.

    Raises:
        UserError: A class has no readable image.
    """
    lost = np.setdiff1d(labels, labels[kept])
    if len(lost):
        first = next(reason for row, reason in sorted(bad.items()) if labels[row] == lost[0])
        raise UserError(
            f"no image of the class {class_names[lost[0]]} can be read: replace its files, or "
            f"omit the class from data.classes; the first error: {first}"
        )
    images = np.load(file, mmap_mode="r")
    shorter = file.with_suffix(".short")
    array = np.lib.format.open_memmap(shorter, "w+", np.uint8, (len(kept), *images.shape[1:]))
    for start in range(0, len(kept), CHUNK):
        array[start : start + CHUNK] = images[kept[start : start + CHUNK]]
    array.flush()
    shorter.replace(file)
    return labels[kept]
