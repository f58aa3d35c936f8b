"""The command line of this process, for records and for messages that suggest a command."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from glimpse.config.folder import CONFIG_DIR, CONFIG_NAME, values_of
from glimpse.config.schema import PATHS

PLAIN = r"[\w./-]*/[\w./-]*"  # a path that Hydra reads literally
# A path that needs no quotes as the value of one of PATHS.
LITERAL = r"[\w./(]([\w ./()&-]*[\w./)&-])?"


def command() -> list[str]:
    """The words of this process's command line, without the folder of the program."""
    name = ["glimpse", "train"] if _is_glimpse() else [Path(sys.argv[0]).name]
    return [*name, *sys.argv[1:]]


def program(line: Sequence[str]) -> list[str]:
    """The words that start a training as a command line did: `glimpse train` or `python train.py`."""
    return ["glimpse", "train"] if line[:1] == ["glimpse"] else ["python", "train.py"]


def to_type(*arguments: str, line: Sequence[str] | None = None) -> str:
    """A command that trains with these arguments and the configuration folders of a command line.

    The command line is that of this process, or `line`, as `command` returned it.
    """
    line = command() if line is None else line
    return in_shell(*program(line), *own_configuration(line), *arguments)


def own_configuration(line: Sequence[str]) -> list[str]:
    """The words of a command line that name folders of configuration files and a root."""
    return [
        word
        for flags in (CONFIG_DIR, CONFIG_NAME)
        for value in values_of(line, flags)
        for word in (flags[0], value)
    ]


def in_shell(*words: str) -> str:
    """Quote words for a shell where they need it, with double quotes around blanks and quotes."""
    return " ".join(map(_for_shell, words))


def _for_shell(word: str) -> str:
    quoted = shlex.quote(word)
    is_simpler = (" " in word or "'" in word) and not set('"$`\\!') & set(word)
    return f'"{word}"' if quoted != word and is_simpler else quoted


def as_shown(override: str) -> str:
    """Format an override for display, without quotes around a path that does not need them."""
    found = re.fullmatch(r"([\w.+]+)='([^']*)'", override)
    if not found:
        return override
    is_path = found[1] in PATHS and "/" in found[2] and re.fullmatch(LITERAL, found[2])
    return f"{found[1]}={found[2]}" if is_path or re.fullmatch(PLAIN, found[2]) else override


def _is_glimpse() -> bool:
    started = Path(sys.argv[0])
    name = started.parent.name if started.name == "__main__.py" else started.stem
    return name == "glimpse"  # or python -m glimpse
