"""The jobs of a sweep: the overrides of each job, and the name of its folder.

A name is made from the overrides that the sweep varies. Equal values have equal names, however they
are typed: `0.1` and `0.10` are one job. Nothing here composes a configuration.
"""

import hashlib
import itertools
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, RangeSweep

from glimpse.errors import UserError
from glimpse.text import is_number

MAX_BYTES = 200  # of a folder's name; file systems take 255
MOST_IN_ANY_ORDER = 4  # varied keys of a job that is found again in whatever order they are typed
# Keys that belong to the whole sweep.
NOT_SWEPT = ("name", "output_dir", "resume", "check", "sweep")


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: Its place in the sweep, from 0.
        overrides: All its overrides, in the order typed, with one value for each key.
        varying: The overrides that the sweep varies, such as ("model=linear", "seed=1").
        name: The name of its folder inside the sweep's folder.
    """

    number: int
    overrides: tuple[str, ...]
    varying: tuple[str, ...]
    name: str

    def __str__(self) -> str:
        return " ".join(self.varying) or self.name


@dataclass(frozen=True)
class Grid:
    """Every combination of the values that a sweep lists.

    Attributes:
        jobs: One job for each combination; the last key varies fastest.
        remarks: Lines about values that were given twice.
    """

    jobs: tuple[Job, ...]
    remarks: tuple[str, ...]


def grid(overrides: Sequence[Override], folder: Path) -> Grid:
    """The jobs for every combination of the listed values.

    Args:
        overrides: The overrides as typed.
        folder: The sweep's folder, which may hold jobs of an earlier command.

    Raises:
        UserError: a key cannot be swept, or its values cannot be listed.
    """
    last = {override.get_key_element(): override for override in overrides}  # the last one counts
    remarks: list[str] = []
    choices: list[list[tuple[str, str | None]]] = []  # for each key: (override, part of the name)
    for key, override in last.items():
        if not override.is_sweep_override():
            choices.append([(str(override.input_line), None)])
            continue
        _require_sweepable(override)
        if not override.is_discrete_sweep():
            raise UserError(
                f"{override.input_line}: expected values to list, such as {key}=1,2; "
                "type hydra/sweeper=search to search an interval"
            )
        choices.append(_choices(key, override, remarks))
    jobs = []
    for number, chosen in enumerate(itertools.product(*choices)):
        varying = [(line, part) for line, part in chosen if part is not None]
        jobs.append(
            Job(
                number,
                tuple(line for line, _ in chosen),
                tuple(line for line, _ in varying),
                name_in(folder, [part for _, part in varying]) or str(number),
            )
        )
    return Grid(tuple(jobs), tuple(remarks))


def _require_sweepable(override: Override) -> None:
    """Reject a swept key that decides where the whole sweep is stored or how it is run.

    Raises:
        UserError: the key is one of those.
    """
    if override.key_or_group.partition(".")[0] in NOT_SWEPT:
        raise UserError(
            f"{override.input_line}: a sweep has only one {override.key_or_group}: type a single value"
        )


def _choices(key: str, override: Override, remarks: list[str]) -> list[tuple[str, str | None]]:
    """The distinct values of one key, as (override, part of the name).

    Raises:
        UserError: there are none, for example because glob(*) matches nothing.
    """
    sweep = override.value()
    if isinstance(sweep, RangeSweep) and not sweep.step:
        raise UserError(f"{override.input_line}: expected a step other than 0")
    found: dict[str, str] = {}
    for text in _texts(override):
        line = f"{key}={text}"
        part = name_part(override.key_or_group, parsed(line).value())
        if part in found:
            remark = f"{override.input_line}: equal values make one job, {found[part]}"
            if remark not in remarks:
                remarks.append(remark)
        else:
            found[part] = line
    if not found:
        what = (
            "names of choices" if isinstance(sweep, Glob) else f"values to list, such as {key}=1,2"
        )
        raise UserError(f"{override.input_line}: no value matches; expected {what}")
    return [(line, part) for part, line in found.items()]


def _texts(override: Override) -> Iterable[str]:
    """The listed values as text. Hydra adds up the steps of a float range with rounding errors."""
    sweep = override.value()
    if not isinstance(sweep, RangeSweep) or isinstance(sweep.range(), range):
        return override.sweep_string_iterator()
    start, step, num = steps_of(sweep)
    texts = [str(float(start + i * step)) for i in range(num)]
    if sweep.shuffle:
        random.shuffle(texts)
    return texts


def steps_of(sweep: RangeSweep) -> tuple[Decimal, Decimal, int]:
    """The first value of a range, the step, and the number of values: as in Python, without the stop.

    The step must not be 0.
    """
    start, stop, step = (Decimal(str(number)) for number in (sweep.start, sweep.stop, sweep.step))
    return start, step, max(0, math.ceil((stop - start) / step))


@cache
def parsed(line: str) -> Override:
    """An override such as `seed=1`, as Hydra reads it."""
    return OverridesParser.create().parse_override(line)


def part_of(line: str) -> str:
    """The part of a folder's name for an override as typed."""
    return name_part(line.partition("=")[0].lstrip("+"), parsed(line).value())


def name_part(key: str, value: Any) -> str:
    """The part of a folder's name for one override. Different values give different parts."""
    text = _as_text(value)
    if _is_plain(value):
        return f"{key}-{text}"
    readable = re.sub(r"[^\w.+-]+", "-", text).strip("-")
    if _is_plain_list(value):
        return f"{key}-{readable}"
    return "-".join(filter(None, (key, readable, _checksum(text))))


def name_in(folder: Path, parts: Sequence[str]) -> str:
    """The name of a job's folder: an existing one, even if its parts were typed in another order."""
    orders = itertools.permutations(parts) if len(parts) <= MOST_IN_ANY_ORDER else [parts]
    names = [folder_name(order) for order in orders]
    return next((name for name in names if (folder / name).is_dir()), names[0])


def folder_name(parts: Sequence[str]) -> str:
    """Join the parts of a name; beyond `MAX_BYTES` of UTF-8, the end becomes a checksum."""
    name = "_".join(parts)
    encoded = name.encode()
    if len(encoded) <= MAX_BYTES:
        return name
    ending = f"-{_checksum(name)}"
    return encoded[: MAX_BYTES - len(ending)].decode(errors="ignore") + ending


def _as_text(value: Any) -> str:
    """Numbers that are equal give the same text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        return f"[{','.join(map(_as_text, value))}]"
    return str(value)


def _is_plain(value: Any) -> bool:
    """Whether a file name can show the value as it is, without ambiguity."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"\w|\w[\w.+-]*\w", value)) and not _reads_as_another_kind(value)
    return value is None or isinstance(value, bool) or _is_number(value)


def _is_plain_list(value: Any) -> bool:
    """Whether it is a list of numbers that stay distinct when they are joined by hyphens."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(_is_number(v) and "-" not in _as_text(v) for v in value)
    )


def _reads_as_another_kind(text: str) -> bool:
    """Whether a text looks like a number, several numbers, or one of YAML's words."""
    is_word = text.lower() in ("null", "true", "false")
    return is_number(text) or is_word or not re.search(r"[^\W\d]", text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
