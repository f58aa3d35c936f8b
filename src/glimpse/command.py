"""The command line of this process, for records and for messages that suggest a command."""

import re
import shlex
import sys
from pathlib import Path

from glimpse.config.folder import CONFIG_DIR, CONFIG_NAME, values_of


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
    return shlex.join([*program, *arguments])


def as_shown(override: str) -> str:
    """Format an override for display, without quotes around a path that does not need them."""
    found = re.fullmatch(r"([\w.+]+)='([\w./-]*/[\w./-]*)'", override)
    return f"{found[1]}={found[2]}" if found else override


def _is_glimpse() -> bool:
    return Path(sys.argv[0]).stem in ("glimpse", "__main__")  # or python -m glimpse
