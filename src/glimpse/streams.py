"""Printing that never ends a run and never sends escape sequences to the terminal.

A command whose product is its output asks `lost_output` at its end whether any is missing.

Import nothing heavy: this is set up before anything is printed.
"""

import errno
import io
import os
import sys
from typing import Any, TextIO

NAMES = ("stdin", "stdout", "stderr")
NOBODY_READS = (errno.EPIPE, errno.EIO)  # a closed pipe and a closed terminal


def printable(text: str, *, kept: str = "") -> str:
    r"""Escape characters that a terminal would interpret or cannot show: ESC becomes \x1b.

    Text from outside, such as file names, classes and records, may contain anything.

    Args:
        text: Any text, including surrogates.
        kept: Characters to leave as they are, such as a line break.
    """
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


def say(
    *texts: object, sep: str = " ", end: str = "\n", file: TextIO | None = None, flush: bool = False
) -> None:
    """Print text that may come from outside, without escape sequences; otherwise like `print`."""
    escaped = (printable(str(text), kept="\n") for text in texts)
    print(*escaped, sep=sep, end=end, file=file, flush=flush)


class _Lossy(io.FileIO):
    """A descriptor that ignores a closed pipe, a closed terminal and a full disk.

    Attributes:
        lost: The first error for which output is missing that somebody would have read.
    """

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in NOBODY_READS:
                self.lost = self.lost or error
            return len(memoryview(data))


def keep_printing() -> None:
    """Survive output that goes nowhere, and escape characters that the encoding lacks.

    `train.py | head -1` and a closed terminal lose the output, not the run. A stream that was
    closed before the start (`>&-`) is replaced by an empty one, here and in processes that are
    started. Otherwise, the next file that is opened would get its number, and with it the output.
    """
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for number, name in enumerate(NAMES):
        stream = getattr(sys, name)
        if number and stream is getattr(sys, f"__{name}__"):  # nobody has replaced it
            setattr(sys, name, _lossy(number, stream))


def lost_output() -> OSError | None:
    """Why a part of standard output is missing, such as a full disk; None if nothing is."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Lossy) else None


def _lossy(number: int, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    raw = _Lossy(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
