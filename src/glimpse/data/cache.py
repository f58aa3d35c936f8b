"""The cache: each image is decoded once into a uint8 array on disk, which later runs memory-map.

The array of a part is (N, H, W, C) uint8 in `<data_dir>/.cache/<dataset>-<fingerprint>/`, next to
its labels and the histogram of its pixels. The fingerprint is computed quickly from names, sizes
and modification times; the identity stored in the cache describes the content itself (identity.py).
A cache is written under a temporary name and then renamed, under a lock, so that an interrupted
process never leaves a partial cache and a second process never sees one. A cache that was damaged
later (cache_index.py) is rebuilt, and a message reports it.

This module does not import torch, so that decoding processes start quickly.
"""

import errno
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimpse.data import cache_index
from glimpse.data.cache_index import DamagedError
from glimpse.data.decode import PixelFormat, decode
from glimpse.data.identity import identity, mark, missing_file
from glimpse.data.pixel_statistics import histogram
from glimpse.data.processes import each_chunk
from glimpse.data.spec import Arrays, Files, Part, Source
from glimpse.errors import UnreadableImageError, UserError
from glimpse.files import locked, partial_folder
from glimpse.text import as_utf8, plural

FORMAT = 6  # increase it when the meaning of a cache's files changes
NUM_MARKED = 64  # files whose content counts for the key; up to twice as many in small datasets
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


@dataclass(frozen=True)
class Contents:
    """The contents of a dataset that has been read.

    `format` is the format of the images, whether they are stored or decoded on demand. `folder` is
    the cache. `identity` describes the content that the cache was made from. `num_skipped` is the
    number of skipped files, which `UNREADABLE` in the cache lists. `lost` are the labels of the
    classes whose training images were all skipped. `remarks` are those of the source. `has_files`
    tells whether a part was read from image files. `is_new` tells whether this process has just made
    the cache.
    """

    class_names: tuple[str, ...]
    parts: dict[str, Stored | Files]
    format: PixelFormat
    folder: Path | None = None
    identity: str | None = None
    num_skipped: int = 0
    lost: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()
    has_files: bool = True
    is_new: bool = False


def fingerprint(
    root: Path | str, files: Iterable[Path | str], *settings: object, skip_unreadable: bool = False
) -> str:
    """Return a key of 16 hexadecimal digits for files and settings.

    The key depends on each file's name below `root`, size and modification time, and on the content
    of some of the files: copies of other images may have the same times. It stays the same if the
    whole folder moves. With `skip_unreadable`, a file may be missing, for example behind a broken
    link.

    Raises:
        UserError: a file is missing.
    """
    digest = hashlib.sha256(repr((FORMAT, *settings)).encode())
    prefix = str(root)
    names = [str(path) for path in files]
    for name in names[:: max(1, len(names) // NUM_MARKED)]:
        with suppress(OSError):  # the next loop or the decoder reports it
            digest.update(mark(Path(name)))
    for name in names:  # pathlib's stat and relative_to take a second for 100,000 files
        try:
            status = os.stat(name)
        except FileNotFoundError as error:
            if not skip_unreadable:
                raise missing_file(name) from error
            status = os.lstat(name)
        digest.update(
            f"{name.removeprefix(prefix)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(
                "utf-8", "surrogateescape"
            )
        )
    return digest.hexdigest()[:16]


def without_cache(
    read: Callable[[], Source], pixel_format: Callable[[Source], PixelFormat]
) -> Contents:
    """Return the contents of a source without a cache: pixels in memory, or files to decode."""
    source = read()
    parts = {
        name: part
        if isinstance(part, Files)
        else Stored(part.images, part.labels, histogram(part.images))
        for name, part in source.parts().items()
    }
    return Contents(
        source.class_names,
        parts,
        _format_of(source, pixel_format),
        remarks=source.remarks,
        has_files=_has_files(source),
    )


def load_or_build(
    folder: Path,
    read: Callable[[], Source],
    pixel_format: Callable[[Source], PixelFormat],
    *,
    num_workers: int,
    skip_unreadable: bool = False,
) -> Contents:
    """Memory-map the cache in `folder`, building it first if it does not exist or is damaged.

    Args:
        folder: The cache folder for this fingerprint.
        read: The dataset's reader; called only to build.
        pixel_format: Returns the format of the arrays made from files; called only to build.
        num_workers: Number of decoding processes.
        skip_unreadable: Whether to skip files that cannot be read; `UNREADABLE` lists them.

    Raises:
        UserError: an image cannot be read (the message gives its path), or the folder is not
            writable.
    """
    with suppress(DamagedError):
        return _open(folder)
    with locked(Path(f"{folder}.lock"), partial(_not_written, folder)):
        try:
            return _open(folder)  # another process has built it meanwhile
        except DamagedError as damage:
            if os.path.lexists(folder):
                print(f"the cache {folder} is damaged ({damage}): rebuilding it", flush=True)
                _remove(folder)
        source = read()
        try:
            with partial_folder(folder) as unfinished:
                _write(unfinished, source, pixel_format, num_workers, skip_unreadable)
                unfinished.rename(folder)
        except OSError as error:
            raise _not_written(folder, error) from error
    try:
        return replace(_open(folder), is_new=True)
    except DamagedError as damage:
        raise UserError(f"the cache {folder} cannot be read: {damage}; {_ELSEWHERE}") from damage


def verify(folder: Path) -> None:
    """Read every byte of the cache in `folder` and compare its checksums.

    Raises:
        UserError: a file is damaged; the message names it.
    """
    try:
        cache_index.read(folder, every_byte=True)
    except DamagedError as damage:
        raise UserError(
            f"the cache {folder} is damaged ({damage}); the disk may be failing: delete this folder, "
            "and the next run rebuilds it"
        ) from damage


def kept_rows(folder: Path, part: str) -> NDArray[np.int64] | None:
    """Return the rows of a source's part that the cache in `folder` contains; None for all."""
    file = folder / f"{part}-kept.npy"
    return np.load(file) if file.exists() else None


def _not_written(folder: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"cannot write the cache {folder}: {reason}; {_ELSEWHERE}")


def _remove(folder: Path) -> None:
    """Remove a damaged cache, or a file or link in its place. A link is not followed."""
    try:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()
    except OSError as error:
        raise _not_written(folder, error) from error


def _open(folder: Path) -> Contents:
    """Memory-map a cache.

    Raises:
        DamagedError: there is no cache, or it is damaged.
    """
    facts = cache_index.read(folder)
    return Contents(
        class_names=tuple(facts["class_names"]),
        parts={name: _map(folder, name) for name in facts["parts"]},
        format=PixelFormat(**facts["format"]),
        folder=folder,
        identity=facts["identity"],
        num_skipped=facts["num_skipped"],
        lost=tuple(facts["lost"]),
        remarks=tuple(facts["remarks"]),
        has_files=facts.get("has_files", True),  # caches of older versions do not say
    )


def _map(folder: Path, name: str) -> Stored:
    images = _mapped(folder / f"{name}.npy")
    labels = np.load(folder / f"{name}-labels.npy")
    return Stored(images, labels, np.load(folder / f"{name}-histogram.npy"))


def _mapped(file: Path) -> NDArray[np.uint8]:
    """The array in a file, mapped into memory.

    It is mapped copy-on-write, because torch warns of arrays that are not writable. Nothing writes,
    so no page is ever copied. Linux refuses such a map if it is larger than the memory.
    """
    try:
        images: NDArray[np.uint8] = np.load(file, mmap_mode="c")
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        images = np.load(file, mmap_mode="r")
    return images


def _has_files(source: Source) -> bool:
    return any(isinstance(part, Files) for part in source.parts().values())


def _format_of(source: Source, pixel_format: Callable[[Source], PixelFormat]) -> PixelFormat:
    if isinstance(source.train, Files):
        return pixel_format(source)
    return PixelFormat(*source.train.images.shape[1:])


def _write(
    folder: Path,
    source: Source,
    pixel_format: Callable[[Source], PixelFormat],
    num_workers: int,
    skip_unreadable: bool,
) -> None:
    """Write all files of a cache."""
    wanted = _format_of(source, pixel_format)
    reasons: list[str] = []
    lost: list[int] = []
    parts: dict[str, Part] = {}  # as stored
    marks: dict[str, list[bytes]] = {}
    for name, part in source.parts().items():
        file, labels = folder / f"{name}.npy", part.labels.astype(np.int64)
        if isinstance(part, Arrays):
            np.save(file, part.images)
            counts = histogram(part.images)
            bad = {row: reason for row, (_, reason) in part.unreadable.items()}
            kept = np.delete(np.arange(len(labels) + len(bad)), list(bad))
            skipped = [label for label, _ in part.unreadable.values()]
            parts[name] = part
        else:
            counts, marks[name], bad = _store(file, part, wanted, num_workers, skip_unreadable)
            paths = [path for row, path in enumerate(part.paths) if row not in bad]
            kept = np.delete(np.arange(len(labels)), list(bad))
            if bad:
                _keep_rows(file, kept)
            skipped, labels = labels[list(bad)].tolist(), labels[kept]
            parts[name] = Files(paths, labels)
        if name == "train":
            lost = sorted(set(skipped) - set(labels.tolist()))
        if bad:
            np.save(folder / f"{name}-kept.npy", kept)
            reasons += [bad[row] for row in sorted(bad)]
        np.save(folder / f"{name}-labels.npy", labels)
        np.save(folder / f"{name}-histogram.npy", counts)
    if reasons:
        lines = "".join(f"{as_utf8(reason)}\n" for reason in reasons)
        (folder / UNREADABLE).write_text(lines, encoding="utf-8")
    facts = {
        "class_names": source.class_names,
        "parts": list(parts),
        "format": asdict(wanted),
        "identity": identity(source.class_names, parts, marks),
        "num_skipped": len(reasons),
        "lost": lost,
        "remarks": source.remarks,
        "has_files": _has_files(source),
    }
    cache_index.write(folder, facts)


def _store(
    file: Path, part: Files, wanted: PixelFormat, num_workers: int, skip_unreadable: bool
) -> tuple[NDArray[np.int64], list[bytes], dict[int, str]]:
    """Write the array of a part.

    Returns:
        The histogram of its pixels, the marks of the decoded files, and the reason for each empty
        row.
    """
    shape = (len(part.paths), *wanted.shape)
    np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
    if hasattr(os, "posix_fallocate"):  # report a full disk now; a later write would crash
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    elif shutil.disk_usage(file.parent).free < file.stat().st_size:  # on macOS
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    print(f"decoding {plural(len(part.paths), 'image')} once into {file.parent.parent}", flush=True)
    decode_chunk = partial(_decode_chunk, file, wanted, skip_unreadable)
    counts = np.zeros((wanted.channels, 256), np.int64)
    marks: list[bytes] = []
    bad: dict[int, str] = {}
    with file.open("r+b") as opened:
        chunks = each_chunk(decode_chunk, part.paths, num_workers=num_workers, what="decoding")
        for found, seen, empty in chunks:
            counts += found
            marks += seen
            bad |= empty
            os.fsync(opened.fileno())  # here, so that decoding processes need not wait for it
    return counts, marks, bad


def _decode_chunk(
    file: Path, wanted: PixelFormat, skip_unreadable: bool, paths: Sequence[Path], start: int
) -> tuple[NDArray[np.int64], list[bytes], dict[int, str]]:
    """Decode files into the rows from `start` on, and return what `_store` does, for these rows."""
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


def _keep_rows(file: Path, kept: NDArray[np.int64]) -> None:
    """Rewrite an array with these rows only."""
    images = np.load(file, mmap_mode="r")
    shorter = file.with_suffix(".short")
    array = np.lib.format.open_memmap(shorter, "w+", np.uint8, (len(kept), *images.shape[1:]))
    for place, row in enumerate(kept):
        array[place] = images[row]
    array.flush()
    shorter.replace(file)
