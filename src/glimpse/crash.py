"""An unexpected error: its traceback in a file, and one line that says what happened and where.

If the system has run out of something, such as memory, the line names it and says what to type.
Nothing heavy is imported.
"""

import errno
import sysconfig
import tempfile
import traceback
from pathlib import Path

from glimpse.errors import UserError, one_line
from glimpse.files import write_text

TRACEBACK = "traceback.txt"  # file name in a run folder


class CrashError(Exception):
    """An unexpected error, as one line that names the file with its traceback."""


def crash(error: BaseException, folder: Path | None, *, name: str = TRACEBACK) -> CrashError:
    """Save the full traceback of an error and describe the error and its location in one line.

    The traceback goes into the run folder; if that is None or cannot be written, into the system's
    temporary folder.
    """
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return CrashError(f"{str(error.filename)[:60]}… is too long for a path: type a shorter one")
    text = "".join(traceback.format_exception(error))
    cause = named(error)
    if remedy := shortage(error):
        cause = f"{remedy} ({cause})"
    what = f"{cause}, at {_place(error)}"
    folders = [folder] if folder is not None and folder.is_dir() else []
    for place in (*folders, None):
        try:
            path = (place or Path(tempfile.mkdtemp(prefix="glimpse-"))) / name
            write_text(path, text)
        except (OSError, UserError):  # such as a full disk
            continue
        return CrashError(f"{what}; the full traceback is in {path}")
    return CrashError(f"{what}; HYDRA_FULL_ERROR=1 before the command shows the full traceback")


def shortage(error: BaseException) -> str | None:
    """Say that the system has run out of memory, files or processes, if this caused the error.

    Each library reports this in its own way. A full disk does not count: the code that writes
    reports it.

    Returns:
        What has run out and what to type; None if the error has another cause.
    """
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.EMFILE, errno.ENFILE):
        return (
            "too many open files: type ulimit -n 4096 first, or a lower data.num_workers or "
            "hydra.launcher.n_jobs"
        )
    if number == errno.EAGAIN or "can't start new thread" in text:
        return (
            "the system starts no more processes or threads: raise the limit that ulimit -u shows, or "
            "type data.num_workers=0"
        )
    if "No usable temporary directory" in text:
        return "no temporary folder can be written: type export TMPDIR=<a writable folder> first"
    if "failed to map segment" in text:
        return "too little memory to load torch: raise the limit that ulimit -v shows"
    is_memory = isinstance(error, MemoryError) or number == errno.ENOMEM
    is_memory |= type(error).__name__ == "OutOfMemoryError" or "allocate memory" in text
    if is_memory:
        return (
            "out of memory: type a lower data.batch_size or data.presize, or choose a smaller model"
        )
    return None


def is_in_own_code(error: BaseException) -> bool:
    """Whether an error occurred in code of the user's, or in a library that it called."""
    frames = _outside_libraries(error)
    return bool(frames) and not frames[-1].filename.startswith(str(Path(__file__).parent))


def _place(error: BaseException) -> str:
    """File and line of the innermost frame outside libraries, or of the innermost frame."""
    frame = (_outside_libraries(error) or traceback.extract_tb(error.__traceback__))[-1]
    return f"{frame.filename}:{frame.lineno}"


def _outside_libraries(error: BaseException) -> list[traceback.FrameSummary]:
    libraries = ("site-packages", sysconfig.get_path("stdlib"), "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    return [f for f in frames if not any(part in f.filename for part in libraries)]


def named(error: BaseException) -> str:
    """The type, the message and the notes of an error."""
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called, which ends the process before the run is over"
    notes = [*getattr(error, "__notes__", ())]
    if "Expected more than 1 value per channel" in str(error):
        notes.append(
            "batch norm needs two values or more of each channel: type data.batch_size=2 or more"
        )
    shown = "".join(f" ({note})" for note in notes)
    return f"{type(error).__name__}: {one_line(str(error))}{shown}"
