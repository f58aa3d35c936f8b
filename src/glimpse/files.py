"""All file writing: a file is written completely or not at all, and never through a link.

A file is written under a temporary name in the same folder, flushed to disk, and renamed. A full
disk or a killed process therefore never leaves half a file, and a reader never sees one. Each
writer has its own temporary name, so that two writers of the same file do not disturb each other;
the last one wins. The next writer removes what a killed one has left. Files that can be made again
from others, such as pictures, are not flushed. Renaming replaces a link instead of following it. A
run folder may come from a stranger, so no link is followed out of it. A table that grows, such as
metrics.csv, receives whole rows instead of being written anew for each.
"""

import csv
import errno
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from glimpse.errors import UserError

if sys.platform != "win32":
    import fcntl


class CannotWriteError(UserError):
    """A file cannot be written, for example on a full disk. Its old content is unchanged."""


_KINDS = (
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def special_kind(mode: int) -> str | None:
    """Name a special file, such as a pipe, from its `st_mode`; return None for a regular file."""
    return next((what for holds, what in _KINDS if holds(mode)), None)


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path`, and rename it to `path` after the block.

    If the block raises, `path` stays as it was.

    Args:
        path: The file to write.
        flush: Whether to wait until it is on the disk, so that it survives a power failure. This is
            not necessary for a file that can be made again from others.

    Raises:
        CannotWriteError: the file cannot be written, for example because the disk is full.
    """
    try:
        with _temporary(path) as partial:
            yield partial
            if flush:
                with partial.open("rb") as written:
                    os.fsync(written.fileno())
            partial.replace(path)
        if flush:
            _flush_folder(path.parent)
    except IsADirectoryError as error:
        raise CannotWriteError(
            f"cannot write {path}: it is a folder, expected a file: move it elsewhere"
        ) from error
    except OSError as error:
        raise CannotWriteError(f"cannot write {path}: {error.strerror or error}") from error


def discard_partials(folder: Path) -> None:
    """Remove, at any depth, the temporary files that killed processes have left."""
    for path in folder.rglob(".*.partial*"):
        _discard_if_left(path)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Create an empty file in the folder of `path`, locked in the block and then removed."""
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if _TEMPORARY.match(entry.name):
                _discard_if_left(Path(entry))
    partial, descriptor = _created(path)
    try:
        yield partial
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        os.close(descriptor)


# Without the name of the file, which may be long.
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.partial")


def _created(path: Path) -> tuple[Path, int]:
    """Create a temporary file that will become `path`; return it and its locked descriptor."""
    while True:
        partial = path.with_name(f".{secrets.token_hex(8)}.partial{path.suffix}")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if _is_lockable(descriptor) and os.path.lexists(partial):
            return partial, descriptor
        os.close(descriptor)  # another process has just mistaken it for a leftover


def _discard_if_left(path: Path) -> None:
    """Remove a temporary file, unless a process is writing it."""
    with suppress(OSError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            path.unlink()
            return
        descriptor = os.open(path, os.O_RDWR | _CAREFULLY)
        try:
            if _is_lockable(descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


# The errors of locking on a file system without locks, such as NFS without lockd.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_AS_BYTES = getattr(os, "O_BINARY", 0)  # on Windows
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def _is_lockable(descriptor: int) -> bool:
    """Lock an open file; True on a system without locks. False if another process may have it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            return error.errno != errno.EBADF  # NFS, for a file that is not open for writing
    return True


def _flush_folder(folder: Path) -> None:
    """Flush a rename to disk, if the system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str, *, flush: bool = True) -> None:
    """Write a text file as UTF-8; `flush` as in `replacing`.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path, flush=flush) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def append_text(path: Path, text: str, *, size: int) -> bool:
    """Append text to a file if it still has the size in bytes that its writer left it with.

    It is not flushed to the disk. The text is written by one call, so that a killed process leaves
    all of it or nothing.

    Returns:
        Whether it was appended. If not, the file is gone or somebody has changed it.

    Raises:
        CannotWriteError: the disk is full. The file is unchanged.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | _AS_BYTES | _CAREFULLY)
    except OSError:
        return False
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        content = text.encode("utf-8", "surrogateescape")
        try:
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise CannotWriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        os.close(descriptor)
    return True


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an indented JSON file.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table with a header as UTF-8.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@contextmanager
def appending(path: Path) -> Iterator[int]:
    """Yield a descriptor that appends to a log file. The file is created; a link is not followed.

    Raises:
        UserError: the file cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, not_written: Callable[[OSError], UserError]) -> Iterator[None]:
    """Hold the lock in the file `path`, whose folder is created; other processes wait.

    If the file cannot be written, `not_written` makes the error for the user.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if error.errno in NO_LOCKS:
            yield
            return
        raise not_written(error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Create a temporary folder, which the block renames to `path` or moves into it.

    What is left of it is removed, and so is what killed processes have left: the caller holds a
    lock, so that no other process is writing one.
    """
    for leftover in path.parent.glob(f"{path.name}.partial-*"):
        shutil.rmtree(leftover)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def subfolder(folder: Path, name: str) -> Path:
    """The folder `name` inside `folder`; it is created if it does not exist.

    Raises:
        UserError: it cannot be created, or it is a link that leads out of `folder`.
    """
    path = folder / name
    require_inside(folder, path)
    make_folder(path)
    return path


def make_folder(path: Path) -> None:
    """Create a folder, and its parents, if they do not exist.

    Raises:
        CannotWriteError: it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"cannot write {path}: {error.strerror}") from error


def require_writable(folder: Path) -> None:
    """Require that files can be written to a folder, before their content is computed.

    Raises:
        CannotWriteError: they cannot, for example because the file system is read-only.
    """
    try:
        with _temporary(folder / "tried"):
            pass
    except OSError as error:
        raise CannotWriteError(f"cannot write {folder}: {error.strerror or error}") from error


def require_kinds(folder: Path, *, files: Iterable[str], folders: Iterable[str] = ()) -> None:
    """Reject a run folder if one of its files is a folder, or one of its folders is a file.

    Raises:
        UserError: there is such a case. The message names the first one.
    """
    places = [(folder / name, "file") for name in files]
    places += [(folder / name, "folder") for name in folders]
    for path, expected in places:
        found = "folder" if os.path.isdir(path) else "file"
        if os.path.lexists(path) and found != expected:
            raise UserError(
                f"{path} is a {found}, expected a {expected}: move it elsewhere, then run the same command again"
            )


def require_current_folder() -> None:
    """Reject a current folder that has been deleted since the shell entered it.

    Raises:
        UserError: it has been deleted.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError("the current folder has been deleted: type cd <another folder>") from error


def require_inside(folder: Path, path: Path) -> None:
    """Reject a path below `folder` if a link takes it outside `folder`.

    Raises:
        UserError: the path leads outside. The message names it.
    """
    if not is_inside(folder, path):
        raise UserError(f"{path} is a link that leads out of {folder}: remove the link")


def is_inside(folder: Path, path: Path) -> bool:
    """Whether a path is below `folder` after every link in it has been resolved."""
    whole = Path(os.path.realpath(path))  # `Path.resolve` raises if links form a cycle
    return whole.is_relative_to(os.path.realpath(folder))


def is_own_file(folder: Path, path: Path) -> bool:
    """Whether `path` is a regular file inside `folder`, not a link out of it and not a pipe."""
    return is_inside(folder, path) and os.path.isfile(path)  # False if access is denied


def require_no_links_out(folder: Path) -> None:
    """Reject a folder that contains, at any depth, a link that leads out of it.

    Raises:
        UserError: there is such a link. The message names the first one.
    """
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.is_symlink():
                require_inside(folder, path)
