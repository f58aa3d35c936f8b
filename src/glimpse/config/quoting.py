"""Paths on the command line are taken literally: `data.root=My Photos (2024)`,
`data.root=~/photos`, `a=b`.

Hydra reads a value as an expression, in which spaces, parentheses and `=` have a meaning, and a
shell expands `~` only at the start of a word. Values that are paths are therefore quoted, and their
`~` expanded, before Hydra reads them. Values in quotes, interpolations, `null` and, in a sweep,
lists of values are not changed.
"""

import os
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

from glimpse.config.schema import PATHS, TEXTS
from glimpse.errors import UserError

OF_THE_SWEEP = ("output_dir", "resume")  # paths of which a sweep has only one


def quoted(value: object) -> str:
    """Return a path or other text as Hydra reads it literally."""
    return QuotedString(str(value).replace("${", "\\${"), Quote.single).with_quotes()


def unquoted(value: str) -> str:
    """Return the text that a value of the command line stands for, which may be in quotes."""
    if value[:1] not in ("'", '"'):
        return value
    override = parsed(f"key={value}")
    return str(override.value()).replace("\\${", "${") if override else value.strip("'\"")


def parsed(override: str) -> Override | None:
    """An override as Hydra reads it; None if it cannot."""
    try:
        [found] = OverridesParser.create().parse_overrides([override])
    except (OverrideParseException, ValueError):
        return None
    return found


def as_value(value: Any) -> str:
    """Format a plain value as it is typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(as_value, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def quote_texts(overrides: Sequence[str], *, is_sweep: bool = False) -> list[str]:
    """Quote the values that are paths or other text, where Hydra would read something else.

    Raises:
        UserError: a path is empty, which would mean the current folder or the root of all folders.
    """
    return [_as_text(override, is_sweep) for override in overrides]


def _as_text(override: str, is_sweep: bool) -> str:
    key, equals, value = override.partition("=")
    plain = key.lstrip("+")
    if equals and plain in PATHS and not value.strip("'\" "):
        raise UserError(f"{plain}= is empty, expected {_expected(plain)}")
    if not equals or plain not in TEXTS or value in ("", "null", "none", "default"):
        return override
    if value[0] in "'\"" or "${" in value or (is_sweep and parsed(override)):
        return override
    if plain in PATHS:
        is_list = is_sweep and plain not in OF_THE_SWEEP and not os.path.lexists(value)
        paths = value.split(",") if is_list else [value]  # as Hydra splits what it can read
        return f"{key}={','.join(quoted(os.path.expanduser(path)) for path in paths)}"
    return override if parsed(override) else f"{key}={quoted(value)}"


def _expected(key: str) -> str:
    """What to type for a path that is empty, perhaps because a variable of the shell is."""
    if key in ("data_dir", "output_dir", "data.root"):
        return f"a folder: type {key}=. for the current folder"
    if key == "resume":
        return "a run folder: resume=null starts a new run"
    return f"a path: type {key}=null for none"
