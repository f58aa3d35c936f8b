"""What tells a dataset's content from another's: names of classes and files, labels, bytes.

A resumed run asks for the same data, and two runs are compared on the same. Times and places are none
of it, so that a copy on another machine is the same data. Of a file count its first and last 32 KiB and its
size: a header, and the end of what was appended or cut. Pixels are those of arrays only: libraries of
two machines may decode a JPEG a little differently. Left out: an edit in the middle of a large file that
keeps its size.

Nothing here imports torch: the processes that decode start quickly.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimpse.data.spec import Arrays, Files, Part
from glimpse.errors import UserError

END = 32 * 1024  # bytes of a file that are read at either end
CHUNK = 512  # images hashed at a time, files read by a thread at a time
# Binary on Windows; nowhere a wait for who would write into a pipe.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def mark(path: Path) -> bytes:
    """16 bytes that tell a file's content, as far as it is looked at, from another's."""
    descriptor = os.open(path, _FLAGS)  # twice as fast as `open`, which counts for small files
    try:
        size = os.fstat(descriptor).st_size
        content = _read(descriptor, size if size <= 2 * END else END)
        if size > 2 * END:
            os.lseek(descriptor, -END, os.SEEK_END)
            content += _read(descriptor, END)
    finally:
        os.close(descriptor)
    return hashlib.sha256(size.to_bytes(8, "little") + content).digest()[:16]


def _read(descriptor: int, num_bytes: int) -> bytes:
    content = os.read(descriptor, num_bytes)
    while len(content) < num_bytes and (more := os.read(descriptor, num_bytes - len(content))):
        content += more  # a network's file system may give less than was asked for
    return content


def marks(paths: Sequence[Path], *, num_workers: int) -> list[bytes]:
    """The mark of every file, in threads: most of their time goes by in the system and in the hash.

    Raises:
        UserError: a file cannot be read.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    try:
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            return [found for chunk in pool.map(_marks_of, chunks) for found in chunk]
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is missing, though the dataset lists it: put it back, or remove the "
            "dataset's folder to unpack it again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def _marks_of(paths: Sequence[Path]) -> list[bytes]:
    return [mark(path) for path in paths]


def common_folder(names: Sequence[str]) -> str:
    """The deepest folder that all files lie in, with a separator at its end; empty if there is none."""
    prefix = os.path.commonprefix(names)  # noqa: RUF071  # of characters, cut back to a folder
    return prefix[: prefix.rfind(os.sep) + 1]


def identity(
    class_names: Sequence[str], parts: Mapping[str, Part], marks: Mapping[str, Sequence[bytes]]
) -> str:
    """Of a dataset, 64 hexadecimal digits.

    Args:
        class_names: of all classes.
        parts: by name.
        marks: for each part of files, those of its files, in their order.
    """
    digest = hashlib.sha256(repr(tuple(class_names)).encode())
    names = {name: list(map(str, p.paths)) for name, p in parts.items() if isinstance(p, Files)}
    start = len(common_folder([name for listed in names.values() for name in listed]))
    for name, part in parts.items():
        digest.update(f"{name} {len(part.labels)}".encode())
        digest.update(part.labels.astype("<i8").tobytes())
        if isinstance(part, Arrays):
            _add_images(digest, part.images)
            continue
        for path, found in zip(names[name], marks[name], strict=True):
            relative = path[start:].replace(os.sep, "/")
            digest.update(os.fsencode(relative) + b"\0" + found)
    return digest.hexdigest()


def _add_images(digest: "hashlib._Hash", images: NDArray[np.uint8]) -> None:
    digest.update(str(images.shape).encode())
    for start in range(0, len(images), CHUNK):
        digest.update(np.ascontiguousarray(images[start : start + CHUNK]).data)
