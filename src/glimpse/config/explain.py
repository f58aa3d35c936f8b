"""Turn every error into one line: what was found, what was expected, and what to type.

crash.py saves the traceback of an unexpected error, and config/mistyped.py explains the errors that
Hydra raises while it composes. Nothing heavy is imported.
"""

import sys
from collections.abc import Sequence

import yaml

from glimpse.config.mistyped import explain_composing, is_of_composing
from glimpse.crash import CrashError, named
from glimpse.errors import UserError
from glimpse.streams import printable


def is_foreseen(error: BaseException) -> bool:
    """Whether an error is a mistake of the user, so that one line explains it."""
    known = (UserError, CrashError, yaml.MarkedYAMLError)
    return isinstance(error, known) or is_of_composing(error)


def explain(error: BaseException, typed: Sequence[str] | None = None) -> str:
    """Describe an error in one line: what was found, what was expected, and what to type.

    Args:
        error: The error that was raised.
        typed: The overrides that led to it; None means the process's arguments.
    """
    return printable(_explained(error, sys.argv[1:] if typed is None else typed))


def _explained(error: BaseException, typed: Sequence[str]) -> str:
    if isinstance(error, UserError | CrashError):
        return str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return (
            f"{mark.name}, line {mark.line + 1}: {error.problem}: expected YAML; indent with two spaces, "
            "close each bracket and quote, and write a space after each colon"
        )
    if is_of_composing(error):
        return explain_composing(error, typed)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return named(error)
