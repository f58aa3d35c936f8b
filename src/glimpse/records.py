"""Read the small files of a run folder, which may be damaged, enormous or written by a stranger.

A file is read only if it is a regular file inside its folder and not too large, and reading never
blocks. Every fault raises `UnreadableError`. YAML with aliases is rejected: our own files have
none, and a few lines of them expand to any size. Left out: checkpoints (saved.py) and pictures.
"""

import csv
import json
import os
import stat
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from glimpse.errors import UserError, first_line
from glimpse.files import is_inside, special_kind

SUMMARY, ENVIRONMENT, METRICS = "summary.json", "environment.json", "metrics.csv"
OF_THE_SPEED = ("images_per_second", "seconds")  # columns of metrics.csv in which equal runs differ
# How a run ended: `status` in its summary.
FINISHED, INTERRUPTED, FAILED, PRUNED = "finished", "interrupted", "failed", "pruned"
# Earlier numbers of epochs in the summary: if each of these stages finished, or else if not.
EXTENDED_FROM, CHANGED_FROM = "extended_from", "changed_from"

MOST_BYTES = 32 * 2**20  # of JSON and CSV; the sweep.json of 100,000 jobs has less
MOST_YAML = 2**20  # bytes; YAML is parsed a hundred times more slowly than JSON
MOST_ROWS = 200_000  # of metrics.csv
DEEPEST = 40  # levels of mappings and lists; our own files have less than ten
TOO_DEEP = f"it is nested deeper than {DEEPEST} levels"
LONGEST_INTEGER = 18  # digits in JSON; a longer one becomes a float, which may be infinite
MOST_BITS = 64  # of an integer in YAML
LARGEST = 1e100  # of a measured number, and its inverse the smallest: squares and sums stay finite

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, if available

# The errors that parsers raise on unexpected text; PyYAML raises nearly anything.
_PARSING = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError,
    csv.Error, yaml.YAMLError,
)  # fmt: skip


class UnreadableError(UserError):
    """A file of a run folder cannot be read. `cause` says why, without its name."""

    def __init__(self, path: Path, cause: str) -> None:
        self.cause = cause
        super().__init__(f"{path} cannot be read: {cause}")


def read_text(folder: Path, name: str, *, most: int = MOST_BYTES) -> str:
    """The text of a file of at most `most` bytes; `name` is its path below the run folder.

    Raises:
        UnreadableError: there is no such file, or it is outside the folder, not a regular file, too
            large, or not UTF-8.
    """
    path = folder / name
    try:
        if not is_inside(folder, path):
            raise UnreadableError(path, "it is a link that leads out of the folder")
        # First, because opening a device may have an effect.
        kind = special_kind(os.stat(path).st_mode)
        if kind is not None:
            raise UnreadableError(path, f"it is {kind}, expected a file")
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # it was replaced meanwhile
                raise UnreadableError(path, "it is not a regular file")
            content = file.read(most + 1)
    except OSError as error:
        raise UnreadableError(path, error.strerror or str(error)) from error
    if len(content) > most:
        raise UnreadableError(path, f"it is larger than {most:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(path, "it is not UTF-8") from error


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a run folder.

    Integers of more than `LONGEST_INTEGER` digits become floats.

    Raises:
        UnreadableError: there is no such file, or it does not contain an object.
    """
    path, text = folder / name, read_text(folder, name)
    try:
        found = json.loads(text, parse_int=_number)
    except _PARSING as error:
        raise UnreadableError(path, _why(error, "JSON")) from error
    if not isinstance(found, dict):
        raise UnreadableError(path, "expected a JSON object")
    try:
        _require_plain(found)
    except ValueError as error:
        raise UnreadableError(path, str(error)) from error
    return found


def json_or_empty(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a run folder; empty if it cannot be read."""
    try:
        return read_json(folder, name)
    except UnreadableError:
        return {}


def read_yaml(folder: Path, name: str) -> Any:
    """The plain value in a YAML file of a run folder.

    Raises:
        UnreadableError: there is no such file, it is not YAML, or it contains an alias.
    """
    path, text = folder / name, read_text(folder, name, most=MOST_YAML)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise UnreadableError(path, str(error)) from error


def parse_yaml(text: str) -> Any:
    """Parse the YAML of a record.

    Raises:
        ValueError: it is not YAML, contains an alias or a huge number, or is nested too deeply.
    """
    try:
        fault = _fault_of_yaml(text)
        found = None if fault else yaml.load(text, YAML_LOADER)
    except _PARSING as error:
        raise ValueError(_why(error, "YAML")) from error
    if fault:
        raise ValueError(fault)
    _require_plain(found)
    return found


def _fault_of_yaml(text: str) -> str:
    """Why text must not be given to the YAML loader; empty if it may.

    The C loader crashes on deep nesting.
    """
    depth = 0
    for event in yaml.parse(text, YAML_LOADER):
        if isinstance(event, yaml.AliasEvent):
            return "it contains an alias, which no record of a run does"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                return TOO_DEEP
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return ""


def read_rows(folder: Path, name: str) -> tuple[list[str], list[dict[str, str]]]:
    """The header and the rows of a CSV file of a run folder. A truncated row lacks its last cells.

    Raises:
        UnreadableError: there is no such file, or it is not CSV.
    """
    path, text = folder / name, read_text(folder, name)
    try:
        reader = csv.DictReader(text.splitlines())
        rows = list(islice(reader, MOST_ROWS + 1))
        header = list(reader.fieldnames or ())
    except _PARSING as error:
        raise UnreadableError(path, _why(error, "CSV")) from error
    if len(rows) > MOST_ROWS:
        raise UnreadableError(path, f"it has more than {MOST_ROWS:,} rows")
    cells = [{k: v for k, v in row.items() if isinstance(k, str) and v is not None} for row in rows]
    return header, cells


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping; otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """`value` if it is a list; otherwise an empty one."""
    return value if isinstance(value, list) else []


def finite(value: Any) -> float | None:
    """A number, or its text, as a float; None if it is not a number or larger than `LARGEST`."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not abs(found) <= LARGEST:  # also if it is not a number
        return None
    return found if abs(found) >= 1 / LARGEST else 0.0


def _number(digits: str) -> float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def _require_plain(value: Any) -> None:
    """Reject a value that is nested too deeply or contains a huge integer.

    Raises:
        ValueError: it is such a value.
    """
    layer = [value]
    for _ in range(DEEPEST):
        if any(isinstance(one, int) and one.bit_length() > MOST_BITS for one in layer):
            raise ValueError("it contains an integer that is too large")
        layer = [
            inner
            for one in layer
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not layer:
            return
    raise ValueError(TOO_DEEP)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))


def _why(error: BaseException, what: str) -> str:
    """The error of a parser as one line."""
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deeply"
    problem = getattr(error, "problem", None) or first_line(error)
    mark = getattr(error, "problem_mark", None)
    where = f" on line {mark.line + 1}" if mark is not None else ""
    return f"it is not {what}: {problem}{where}"
