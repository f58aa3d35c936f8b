"""What a program prints: never the end of a run, and never commands to the terminal.

Import nothing heavy: this is set up before anything is printed.
"""

import io
import os
import sys
from typing import Any, TextIO

NAMES = ("stdin", "stdout", "stderr")


def printable(text: str, *, kept: str = "") -> str:
    r"""Escape what a terminal would obey or cannot show, such as ESC as \x1b, in text from outside.

    File names, classes and records may hold anything.

    Args:
        text: Any text, also with surrogates.
        kept: Characters to leave as they are, such as a line break.
    """
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


def say(
    *texts: object, sep: str = " ", end: str = "\n", file: TextIO | None = None, flush: bool = False
) -> None:
    """Print text that may come from outside, as `print` does, without what a terminal would obey."""
    escaped = (printable(str(text), kept="\n") for text in texts)
    print(*escaped, sep=sep, end=end, file=file, flush=flush)


class _Lossy(io.FileIO):
    """A descriptor whose output may be lost: a closed pipe or terminal, or a full disk, ends nothing."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data))


def keep_printing() -> None:
    """Let the program go on where its output goes nowhere, and show text that the encoding lacks.

    `train.py | head -1` and a closed terminal lose the output, not the run. A stream that was closed
    before the start (`>&-`) is replaced by an empty one, for otherwise the next file that is opened
    would take its place and receive what is printed.
    """
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for number, name in enumerate(NAMES):
        stream = getattr(sys, name)
        if number and stream is getattr(sys, f"__{name}__"):  # nobody has replaced it
            setattr(sys, name, _lossy(number, stream))


def _lossy(number: int, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    raw = _Lossy(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
