"""Read the record of a sweep or a search, sweep.json: its settings, their scores and states.

Jobs that differ only in their seed or fold are one setting. folder.py reads the folders of the
runs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from glimpse.monitor import inferred_mode
from glimpse.records import UnreadableError, finite, read_json
from glimpse.runs.folder import FAILED, FINISHED
from glimpse.runs.settings import REPEATS, repeats_of
from glimpse.text import plural

NAME = "sweep.json"
PRUNED = "pruned"
LOG_RATIO = 30  # an axis of positive numbers is logarithmic if highest / lowest is this or more
PLANNED = ("new", "running", "interrupted", "to extend")  # states of jobs that will still run


@dataclass(frozen=True)
class Setting:
    """One combination of values that a sweep tried, with any number of seeds and folds.

    Attributes:
        values: The values of the axes, by key, as they were typed.
        state: finished, if a job is; otherwise the state of its jobs.
        scores: The metric of each job that is finished or pruned.
        seconds: The time that its jobs took together.
        repeats: The kind of repetition: "seed", "fold", or "run" if both vary.
    """

    values: dict[str, str]
    state: str
    scores: tuple[float, ...]
    seconds: float
    repeats: str = "seed"

    @property
    def is_finished(self) -> bool:
        """Whether its score is known and final."""
        return self.state == FINISHED and bool(self.scores)

    @property
    def is_pruned(self) -> bool:
        """Whether it was stopped early, with a score up to that point."""
        return self.state == PRUNED and bool(self.scores)

    @property
    def score(self) -> float:
        """The mean over the seeds and folds."""
        return fmean(self.scores)

    @property
    def spread(self) -> float:
        """The sample standard deviation over the seeds and folds; 0 for a single one."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True)
class Axis:
    """One key that a sweep varies.

    Attributes:
        key: Such as optimizer.lr.
        places: For each different value, as typed, its place on the axis. Words are placed in the
            order of their first use.
        is_number: Whether the values are numbers.
        is_log: Whether the axis is logarithmic.
    """

    key: str
    places: dict[str, float]
    is_number: bool
    is_log: bool


@dataclass(frozen=True)
class Sweep:
    """The record of a sweep.

    Attributes:
        metric: The name of the metric that compares its jobs.
        mode: "max" or "min": which values are better.
        counts: The number of jobs in each state.
        num_planned: The number of trials that a search wants; None for a grid, whose jobs are all
            counted.
        settings: In the order of the record.
    """

    metric: str
    mode: str
    counts: Mapping[str, int]
    num_planned: int | None
    settings: Sequence[Setting]

    @cached_property
    def axes(self) -> list[Axis]:
        """The keys that have several values."""
        keys = dict.fromkeys(key for setting in self.settings for key in setting.values)
        axes = [
            _axis(key, [s.values[key] for s in self.settings if key in s.values]) for key in keys
        ]
        return [axis for axis in axes if len(axis.places) > 1]

    @property
    def finished(self) -> list[Setting]:
        """The settings whose score is known and final."""
        return [setting for setting in self.settings if setting.is_finished]

    @property
    def pruned(self) -> list[Setting]:
        """The settings that were stopped early, with their scores up to that point."""
        return [setting for setting in self.settings if setting.is_pruned]

    def is_better(self, one: float, other: float) -> bool:
        return one < other if self.mode == "min" else one > other

    @property
    def best(self) -> Setting | None:
        """The finished setting with the best score; the first one in case of a tie."""
        best = None
        for setting in self.finished:
            if best is None or self.is_better(setting.score, best.score):
                best = setting
        return best

    def told(self) -> list[str]:
        """Sentences on the number of jobs by state, and on the best setting."""
        num_jobs = sum(self.counts.values())
        parts = ", ".join(f"{number:,} {state}" for state, number in self.counts.items())
        planned = sum(self.counts.get(state, 0) for state in PLANNED)
        more = f" {planned:,} still planned." if planned else ""
        if self.num_planned is not None:
            more = f" {self.num_planned:,} trials planned in all."
        lines = [f"The sweep has {num_jobs:,} {'job' if num_jobs == 1 else 'jobs'}: {parts}.{more}"]
        if (best := self.best) is not None:
            over = f" ± {best.spread:.4f} over {plural(len(best.scores), best.repeats)}"
            scored = f"{self.metric}: {best.score:.4f}{over if len(best.scores) > 1 else ''}"
            typed = " ".join(f"{key}={value}" for key, value in best.values.items())
            is_mean = len(best.scores) > 1 and not typed
            lines.append(
                f"Mean {scored}." if is_mean else f"Best {scored} with {typed or 'the defaults'}."
            )
        return lines


def read_sweep(folder: Path) -> Sweep | None:
    """The record in a sweep's folder; None if there is none that can be read."""
    try:
        content = read_json(folder, NAME)
    except UnreadableError:
        return None
    jobs = content.get("jobs")
    if not isinstance(jobs, list):
        return None
    jobs = [job for job in jobs if isinstance(job, dict) and isinstance(job.get("overrides"), list)]
    if not jobs:
        return None
    metric = str(content.get("metric") or "")
    mode = content.get("mode")
    planned = content.get("num_planned")
    return Sweep(
        metric=metric,
        mode=mode if mode in ("min", "max") else inferred_mode(metric),
        counts=Counter(str(job.get("state")) for job in jobs),
        num_planned=planned if isinstance(planned, int) else None,
        settings=_settings(jobs),
    )


def _settings(jobs: Sequence[Mapping[str, Any]]) -> list[Setting]:
    by_values: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for job in jobs:
        typed = [str(line).partition("=") for line in job["overrides"]]
        values = tuple((key, value) for key, _, value in typed if key not in REPEATS)
        by_values.setdefault(values, []).append(job)
    return [_setting(dict(values), alike) for values, alike in by_values.items()]


def _setting(values: dict[str, str], jobs: Sequence[Mapping[str, Any]]) -> Setting:
    states = [str(job.get("state")) for job in jobs]
    typed = {str(line).partition("=")[0] for job in jobs for line in job["overrides"]}
    state = next((s for s in (PRUNED, FAILED, FINISHED) if s in states), states[0])
    scored = [job for job in jobs if job.get("state") in (FINISHED, PRUNED)]
    return Setting(
        values,
        state,
        scores=tuple(n for job in scored if (n := _number(job.get("metric"))) is not None),
        seconds=sum(_number(job.get("seconds")) or 0.0 for job in jobs),
        repeats=repeats_of(typed),
    )


def _number(value: Any) -> float | None:
    return finite(value) if isinstance(value, int | float) else None


def _axis(key: str, values: Sequence[str]) -> Axis:
    different = list(dict.fromkeys(values))
    numbers = [number for value in different if (number := finite(value)) is not None]
    if len(numbers) < len(different):
        return Axis(
            key, {v: float(i) for i, v in enumerate(different)}, is_number=False, is_log=False
        )
    is_log = min(numbers) > 0 and max(numbers) / min(numbers) >= LOG_RATIO
    return Axis(key, dict(zip(different, numbers, strict=True)), is_number=True, is_log=is_log)
