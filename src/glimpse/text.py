"""Text for messages and files; names from outside become text that any file can hold.

A file name on Linux is any sequence of bytes. Python keeps bytes that are not UTF-8 as lone
surrogates, which no UTF-8 file accepts. streams.py does the same for terminals.
"""

import codecs
import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

HUGE = 1e6  # from here on, `decimals` uses powers of ten


def class_name(name: object) -> str:
    """Return the name of a class as text with accents in one normal form (NFC).

    macOS may write é as two characters. A class must not become two for that reason.
    """
    return unicodedata.normalize("NFC", as_utf8(name))


def json_of(value: Any) -> str:
    """Return indented JSON to print, without escape sequences.

    It is ASCII where standard output cannot show every character.
    """
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(value, ensure_ascii=not is_utf8, indent=2)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def as_utf8(name: object) -> str:
    """Return the text of a path or name, with each byte that is not UTF-8 written as \\xNN."""
    text = str(name)
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that no file name contains
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def kind_of(value: object) -> str:
    """Name the kind of a value for messages, such as "a list" or "nothing"."""
    if value is None:
        return "nothing"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def by(sizes: Iterable[int]) -> str:
    """Return sizes as text, such as "28×28×1"."""
    return "×".join(map(str, sizes))


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first of some names as text, with " …" if there are more."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def cut(text: str, length: int) -> str:
    """Return a text of at most `length` characters; "…" takes the place of what is cut off."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def is_number(text: str) -> bool:
    """Whether a text is a number, such as 1e-3 or nan."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 epoch" or "1,797 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Format seconds as h:mm:ss, or as m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def decimals(value: float) -> str:
    """Return a loss or another score with four decimals, or in powers of ten if it is huge."""
    return f"{value:.4f}" if abs(value) < HUGE else f"{value:.4g}"
