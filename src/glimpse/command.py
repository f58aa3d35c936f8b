"""The command line of this process, for records and for messages that suggest a command."""

import re
import shlex
import sys
from pathlib import Path

from glimpse.config.folder import CONFIG_DIR, CONFIG_NAME, values_of
from glimpse.config.schema import PATHS

PLAIN = r"[\w./-]*/[\w./-]*"  # a path that Hydra reads literally
LITERAL = (
    r"[\w./(]([\w ./()&-]*[\w./)&-])?"  # a path that needs no quotes as the value of one of PATHS
)


def command() -> list[str]:
    """The words of this process's command line, without the folder of the program."""
    program = ["glimpse", "train"] if _is_glimpse() else [Path(sys.argv[0]).name]
    return [*program, *sys.argv[1:]]


def to_type(*arguments: str) -> str:
    """A command that trains with these arguments and this process's configuration folders."""
    program = ["glimpse", "train"] if _is_glimpse() else ["python", "train.py"]
    for flags in (CONFIG_DIR, CONFIG_NAME):
        for value in values_of(sys.argv[1:], flags):
            program += [flags[0], value]
    return in_shell(*program, *arguments)


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
    return Path(sys.argv[0]).stem in ("glimpse", "__main__")  # or python -m glimpse
