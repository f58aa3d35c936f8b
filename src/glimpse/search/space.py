"""The axes of a search, read from the overrides: `choice`, lists, `range`, `interval` and `tag`.

The grammar is Hydra's (hydra.cc, "Extended override syntax"). Optuna is not imported here, so that
a mistake is reported at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from glimpse.errors import UserError
from glimpse.runs.settings import PLACES, REPEATS
from glimpse.sweeps.jobs import steps_of

TAGS = ("log", "int")
DIGITS = 4  # a continuous axis has at least this many significant digits
EXAMPLE = "'optimizer.lr=tag(log,interval(1e-4,1))'"


@dataclass(frozen=True)
class Choice:
    """One of several values, without an order.

    Attributes:
        values: The values as they are typed.
    """

    values: tuple[str, ...]

    @property
    def samples(self) -> tuple[str, ...]:
        """Values that are checked in place of all values."""
        return self.values

    def typed(self, value: str) -> str:
        return value

    def __str__(self) -> str:
        return ",".join(self.values)


@dataclass(frozen=True)
class Interval:
    """A number between two others, both included.

    Attributes:
        low: The lowest number.
        high: The highest number.
        step: The distance between neighbours; None for any number between the two.
        is_whole: Whether the numbers are integers.
        is_log: Whether equal ratios are equally likely, rather than equal differences.
    """

    low: float
    high: float
    step: float | None = None
    is_whole: bool = False
    is_log: bool = False

    @property
    def samples(self) -> tuple[str, ...]:
        """Values that are checked in place of all: both ends, and a fraction if one is possible."""
        ends = (self.typed(self.low), self.typed(self.high))
        has_fractions = not self.is_whole and self.step is None
        return (*ends, self.typed(self.low + (self.high - self.low) / 3)) if has_fractions else ends

    def typed(self, value: float) -> str:
        """The number as it is typed: rounded, so that it is easy to read and to type again."""
        if self.is_whole:
            return str(round(value))
        if self.step is not None:
            return f"{value:.12g}"
        largest = max(abs(self.low), abs(self.high))
        digits = DIGITS + max(0, round(math.log10(largest / (self.high - self.low))))
        text = f"{value:.{digits}g}"
        if not self.low <= float(text) <= self.high:
            text = repr(self.low if value < (self.low + self.high) / 2 else self.high)
        return text

    def __str__(self) -> str:
        low, high = self.typed(self.low), self.typed(self.high)
        kind = f"range({low},…,{high},{self.step:g})" if self.step else f"interval({low},{high})"
        tags = [tag for tag, given in zip(TAGS, (self.is_log, self.is_whole), strict=True) if given]
        return f"tag({','.join(tags)},{kind})" if tags else kind


Axis = Choice | Interval
Space = dict[str, Axis]  # by key, such as optimizer.lr, with the + of an added key


def split(overrides: Sequence[Override]) -> tuple[Space, list[str]]:
    """Separate the axes of the search from the overrides that every trial shares.

    Raises:
        UserError: an axis is impossible, or nothing is searched.
    """
    space: Space = {}
    shared: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        for found in (space, shared):
            found.pop(key, None)  # the last one counts, as in Hydra
        if not override.is_sweep_override():
            shared[key] = str(override.input_line)
            continue
        if key.lstrip("+") in PLACES:
            raise UserError(f"{override.input_line}: a search cannot vary {key}; give it one value")
        if key in REPEATS:
            remedy = "hydra.sweeper.seeds=3 to train every trial with three seeds"
            raise UserError(
                f"{override.input_line}: a search does not choose a {REPEATS[key]}; type "
                f"{remedy if key == 'seed' else f'{key}=0 for all trials'}"
            )
        space[key] = _axis(override)
    if not space:
        raise UserError(f"nothing is searched: type what to vary, such as {EXAMPLE}")
    return space, list(shared.values())


def _axis(override: Override) -> Axis:
    sweep = override.value()
    text = override.input_line
    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    unknown = sorted(tags - set(TAGS))
    if unknown:
        raise UserError(f"{text}: {unknown[0]} is not a tag; expected {' or '.join(TAGS)}")
    if isinstance(sweep, IntervalSweep):
        return _interval(text, sweep, tags)
    if isinstance(sweep, RangeSweep):
        return _range(text, sweep, tags)
    if tags:
        raise UserError(f"{text}: {sorted(tags)[0]} is for interval and range, not for a list")
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise UserError(f"{text}: there is no value to choose from: type a list, such as key=1,2")
    return Choice(values)


def _interval(text: str | None, sweep: IntervalSweep, tags: set[str]) -> Interval:
    assert sweep.start is not None
    assert sweep.end is not None
    low, high = sweep.start, sweep.end
    is_whole = "int" in tags or (isinstance(low, int) and isinstance(high, int))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{text}: expected two finite numbers, the lower one first")
    if is_whole and not (float(low).is_integer() and float(high).is_integer()):
        raise UserError(f"{text}: tag int needs whole numbers at both ends")
    if "log" in tags and low <= 0:
        raise UserError(f"{text}: tag log needs both ends above 0")
    return Interval(low, high, is_whole=is_whole, is_log="log" in tags)


def _range(text: str | None, sweep: RangeSweep, tags: set[str]) -> Interval:
    if not sweep.step:
        raise UserError(f"{text}: expected a step other than 0")
    start, step, num = steps_of(sweep)
    if not num:
        raise UserError(
            f"{text}: the range is empty: expected a start below the stop, as in range(1,5)"
        )
    ends = float(start), float(start + (num - 1) * step)
    low, high, distance = min(ends), max(ends), abs(float(step))
    is_whole = all(value.is_integer() for value in (low, high, distance))
    if "int" in tags and not is_whole:
        raise UserError(f"{text}: tag int needs whole numbers")
    if "log" in tags and (low <= 0 or not is_whole or distance != 1):
        raise UserError(f"{text}: tag log needs whole numbers above 0 in steps of 1, or interval")
    return Interval(low, high, step=distance, is_whole=is_whole, is_log="log" in tags)
