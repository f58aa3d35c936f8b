"""The identity of a dataset's content: class names, file names, labels and bytes.

A resumed run must use the same data, and two runs are compared on the same data. Modification times
and locations do not count, so that a copy on another machine has the same identity. For a file, its
size and its first and last 32 KiB count, which covers the header and any appended or truncated end.
Pixels count for arrays only, because libraries on two machines may decode a JPEG slightly
differently. Not detected: an edit in the middle of a large file that keeps its size.

This module does not import torch, so that decoding processes start quickly.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimpse.data.spec import Arrays, Files, Part
from glimpse.errors import UserError

END = 32 * 1024  # bytes read at each end of a file
CHUNK = 512  # images hashed at a time, and files that a thread reads at a time
# Open in binary mode on Windows, and never wait for the writer of a pipe.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def mark(path: Path) -> bytes:
    """Return 16 bytes that identify a file's content, from its size and both ends."""
    descriptor = os.open(path, _FLAGS)  # twice as fast as `open`, which matters for small files
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
        content += more  # a network file system may return fewer bytes than requested
    return content


def marks(paths: Sequence[Path], *, num_workers: int, done: Callable[[int], Any]) -> list[bytes]:
    """Return the mark of every file, computed in threads.

    Threads suffice because most of the time is spent in system calls and in the hash. `done` is
    called with the number of files that have been read since its last call.

    Raises:
        UserError: a file cannot be read.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    try:
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            found: list[bytes] = []
            for chunk in pool.map(_marks_of, chunks):
                found += chunk
                done(len(chunk))
            return found
    except FileNotFoundError as error:
        raise missing_file(error.filename) from error
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from error


def missing_file(path: Path | str) -> UserError:
    """Return the error for a file that a dataset lists but that does not exist."""
    if os.path.islink(path):
        return UserError(
            f"{path} is a link to {os.readlink(path)}, which does not exist: restore that file, remove the "
            "link, or type data.on_bad_file=skip to leave it out"
        )
    return UserError(
        f"{path} is missing, but the dataset lists it: restore it from a copy or its archive, "
        "or correct the path if you typed it"
    )


def _marks_of(paths: Sequence[Path]) -> list[bytes]:
    return [mark(path) for path in paths]


def common_folder(names: Sequence[str]) -> str:
    """Return the deepest common folder of all files, with a trailing separator; "" if there is
    none."""
    prefix = os.path.commonprefix(names)  # noqa: RUF071  # by character, then cut to a folder
    return prefix[: prefix.rfind(os.sep) + 1]


def identity(
    class_names: Sequence[str], parts: Mapping[str, Part], marks: Mapping[str, Sequence[bytes]]
) -> str:
    """Return the identity of a dataset, 64 hexadecimal digits.

    `marks` has those of the files of each part that consists of files, in the same order.
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
