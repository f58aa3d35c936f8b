"""Printing that never ends a run and never sends escape sequences to the terminal.

Import nothing heavy: this is set up before anything is printed.
"""

import io
import os
import sys
from typing import Any, TextIO

NAMES = ("stdin", "stdout", "stderr")


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
    """A descriptor that ignores a closed pipe, a closed terminal and a full disk."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
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


def _lossy(number: int, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    raw = _Lossy(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
