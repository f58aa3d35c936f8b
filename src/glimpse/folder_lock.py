"""A lock that lets only one process at a time work in a run folder.

The lock is `flock` on the file `.lock` in the folder (library filelock). The system releases it
when the process ends, even by SIGKILL. In a run of several processes, only the first one holds it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from glimpse.errors import UserError
from glimpse.files import NO_LOCKS, require_kinds

NAME = ".lock"
PATIENCE = 1.0  # seconds; another process that only looks at the lock holds it for a moment


class FolderInUseError(UserError):
    """Another process is working in the run folder."""


@contextmanager
def held(folder: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Create a run folder and hold its lock. A process that already holds the lock may enter again.

    Another process is given `patience` seconds.

    Raises:
        FolderInUseError: another process holds it.
        UserError: the folder cannot be written, or the lock in it is a folder.
    """
    require_kinds(folder, files=[NAME])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise FolderInUseError(
            f"{folder}: another process is working on this run: wait until it has ended, or stop it"
        ) from error
    except OSError as error:
        if error.errno in NO_LOCKS:
            yield
            return
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:  # filelock notices that the file it waited for has gone
            with suppress(OSError):  # the folder may have vanished, which the run's error reports
                (folder / NAME).unlink()
        lock.release()


def is_held(folder: Path) -> bool | None:
    """Whether any process, including this one, is working in a run folder; None if unknown."""
    if not (folder / NAME).exists():
        return False
    lock = _lock(folder)
    if lock.is_locked:
        return True
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # a file system without locks, or a folder that cannot be written
        return None
    lock.release()
    return False


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.resolve() / NAME, is_singleton=True, fallback_to_soft=False)
