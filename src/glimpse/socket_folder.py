"""The temporary folder of multiprocessing's sockets, `pymp-…`: one per program, none left behind.

Workers pass batches through sockets, and a sweep reaches the server of its workers through a
socket. multiprocessing creates a folder for each process that needs one, and removes it when this
process ends by itself. A killed process leaves its folder behind. Here, the first process creates
the folder, and the others share it. Each process holds a lock on a file in it, so that the last one
to end can remove the folder if the first one was killed.
"""

import multiprocessing
import os
import shutil
import sys
import time
from contextlib import suppress
from multiprocessing import util

from glimpse.errors import UserError

if sys.platform != "win32":
    import fcntl

# The maximum length of the folder's path in bytes, because the system limits the length of a
# socket's path, such as that of listener-0123abcd.
LONGEST = (107 if sys.platform == "linux" else 103) - len("/listener-0123abcd")
_LOCK = "in-use"
_held: int | None = None  # the descriptor of the lock; a forked process has its parent's


def share() -> None:
    """Create the folder, unless there is one. Processes that are started from now on use it.

    Raises:
        UserError: no temporary folder can be written, or its path is too long for sockets.
    """
    if _held is None:
        _hold()


def outlive_no_other() -> None:
    """In a worker process: remove the folder at its end if its parent and all others have ended."""
    if _held is not None:
        with suppress(OSError):
            os.close(_held)
    _hold()
    # After the sockets have gone, whose files have priority 0.
    util.Finalize(None, _discard_if_alone, exitpriority=-50)


def discard_if_last() -> bool:
    """Remove the folder unless another process uses it. This process must not use it afterwards."""
    if _held is not None and sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(_held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(util.get_temp_dir(), ignore_errors=True)
            return True
    return False


def _discard_if_alone() -> None:
    parent = multiprocessing.parent_process()
    if parent is None or parent.is_alive():
        return
    for _ in range(10):  # the parent may not have released everything yet
        if discard_if_last():
            return
        time.sleep(0.1)


def _hold() -> None:
    global _held
    try:
        folder = util.get_temp_dir()
        os.makedirs(folder, mode=0o700, exist_ok=True)  # another program may have removed it
        _held = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(
            f"no temporary folder can be written ({error.strerror or error}): type "
            "export TMPDIR=<a writable folder> first"
        ) from error
    if len(os.fsencode(folder)) > LONGEST:
        raise UserError(
            f"the path of the temporary folder {folder} is too long for sockets, expected at most {LONGEST} "
            "bytes: type export TMPDIR=/tmp first"
        )
    if sys.platform != "win32":
        with suppress(OSError):  # a file system without locks
            fcntl.flock(_held, fcntl.LOCK_SH)
