"""Read the record of a sweep or a search, sweep.json: its settings, their scores and states.

Jobs that differ only in their seed or fold are one setting. The record lists the jobs, also those
that have not begun. What a job has reached is read from its run folder: a sweep that was killed has
not written its latest results into the record.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from glimpse.monitor import DEFAULT, inferred_mode
from glimpse.records import FAILED, FINISHED, INTERRUPTED, PRUNED, SUMMARY, finite, json_or_empty
from glimpse.runs.folder import KILLED, RUNNING, Run
from glimpse.runs.groups import differing, named, telling_settings, tells_apart
from glimpse.runs.settings import REPEATS, THEN, repeats_of
from glimpse.text import decimals, plural

NAME = "sweep.json"
NEW = "new"
LOG_RATIO = 30  # an axis of positive numbers is logarithmic if highest / lowest is this or more
PLANNED = (NEW, RUNNING, INTERRUPTED, KILLED, "to extend")  # jobs that will still run


@dataclass(frozen=True)
class Setting:
    """One combination of values that a sweep tried, with any number of seeds and folds.

    Attributes:
        values: The values of the axes, by key, as they were typed.
        state: finished, if a job is; otherwise the state of its jobs.
        scores: The metric of each seed and fold that is finished or pruned. A seed that was trained
            twice counts once, with the mean.
        seconds: The time that its jobs took together.
        repeats: The kind of repetition: "seed", "fold", or "run" if both vary.
        num_repeats: The number of seeds and folds, finished or not.
        apart: The keys whose values cannot be compared by the metric of the sweep.
    """

    values: dict[str, str]
    state: str
    scores: tuple[float, ...]
    seconds: float
    repeats: str = "seed"
    num_repeats: int = 1
    apart: tuple[str, ...] = ()

    @property
    def dataset(self) -> str:
        """Its dataset, or what else tells it apart, as typed; empty if the sweep does not vary it."""
        typed = {key: self.values[key] for key in self.apart}
        return " ".join(v if k == "data" else f"{k}={v}" for k, v in typed.items())

    @property
    def typed(self) -> str:
        """Its values on one dataset, as they were typed."""
        return " ".join(f"{k}={v}" for k, v in self.values.items() if k not in self.apart)

    @property
    def is_whole(self) -> bool:
        """Whether each seed and fold has a score."""
        return len(self.scores) == self.num_repeats

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

    def __str__(self) -> str:
        """Its score, such as "0.9312 ± 0.0020 over 3 seeds"."""
        if self.num_repeats == 1:
            return decimals(self.score)
        num = len(self.scores)
        spread = f" ± {decimals(self.spread)}" if num > 1 else ""
        missing = "" if self.is_whole else f"{num} of "
        return (
            f"{decimals(self.score)}{spread} over {missing}{plural(self.num_repeats, self.repeats)}"
        )


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

    @property
    def num_datasets(self) -> int:
        """The number of datasets, whose scores cannot be compared."""
        return len({setting.dataset for setting in self.settings})

    def told(self) -> list[str]:
        """Sentences on the number of jobs by state, and on the best setting."""
        num_jobs = sum(self.counts.values())
        parts = ", ".join(f"{number:,} {state}" for state, number in self.counts.items())
        planned = sum(self.counts.get(state, 0) for state in PLANNED)
        more = f" {planned:,} still planned." if planned else ""
        if self.num_planned is not None:
            more = f" {self.num_planned:,} trials planned in all."
        lines = [f"The sweep has {plural(num_jobs, 'job')}: {parts}.{more}"]
        for dataset, best in best_by_dataset(self.settings, self.mode).items():
            is_only = [s.dataset for s in self.settings].count(best.dataset) == 1
            is_mean = best.num_repeats > 1 and not best.typed and is_only
            which = "Mean" if is_mean else "Best"
            place = f" on {dataset}" if dataset else ""
            typed = best.typed or ("the defaults" if is_only else "")
            settings = f" with {typed}" if typed and not is_mean else ""
            lines.append(f"{which} {self.metric}{place}: {best}{settings}.")
        return lines


def best_by_dataset(settings: Sequence[Setting], mode: str) -> dict[str, Setting]:
    """For each dataset, the setting with the best score; the first one in case of a tie.

    Settings with a score for each seed and fold come before others, because a mean over fewer of
    them may be luck.

    Args:
        settings: Settings in any state.
        mode: "max" or "min": which scores are better.
    """
    scored = [one for one in settings if one.scores and one.state != PRUNED]
    sign = -1 if mode == "min" else 1
    best: dict[str, Setting] = {}
    for one in sorted(scored, key=lambda one: (not one.is_whole, -sign * one.score)):
        best.setdefault(one.dataset, one)
    return best


def read_sweep(folder: Path, runs: Sequence[Run] = ()) -> Sweep | None:
    """The record in a sweep's folder; None if there is none that can be read.

    Args:
        folder: The sweep's folder.
        runs: The runs in it, which know better than the record what has been reached.
    """
    content = json_or_empty(folder, NAME)
    jobs = content.get("jobs")
    if not isinstance(jobs, list):
        return None
    jobs = [job for job in jobs if isinstance(job, dict) and isinstance(job.get("overrides"), list)]
    if not jobs:
        return None
    known = {run.folder.name: run for run in runs if run.folder.parent == folder}
    metric = str(content.get("metric") or "")
    jobs = [without_removed(folder, job) for job in jobs]
    jobs = [job | _reached(job, known.get(str(job.get("folder"))), metric) for job in jobs]
    jobs = _told_apart(jobs, known)
    mode = content.get("mode")
    planned = content.get("num_planned")
    return Sweep(
        metric=metric,
        mode=mode if mode in ("min", "max") else inferred_mode(metric),
        counts=Counter(str(job.get("state")) for job in jobs),
        num_planned=planned if isinstance(planned, int) else None,
        settings=settings_of(jobs, metric),
    )


def without_removed(folder: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of sweep.json; without its result if its run folder has been removed.

    Args:
        folder: The sweep's folder.
        job: The entry.
    """
    summary = folder / str(job.get("folder")) / SUMMARY
    if job.get("state") not in (FINISHED, PRUNED) or os.path.exists(summary):
        return dict(job)
    return {**job, "state": NEW, "metric": None, "seconds": None}


def _reached(job: Mapping[str, Any], run: Run | None, metric: str) -> dict[str, Any]:
    """What a job's run folder says in place of its entry; empty if it has none."""
    if run is None:
        return {}
    changed = {key: value for key, value in run.settings.items() if THEN in value}
    return {
        "overrides": [
            f"{key}={changed[key]}" if (key := str(line).partition("=")[0]) in changed else line
            for line in job["overrides"]
        ],
        "state": run.status,
        "metric": run.metrics.get(metric or DEFAULT),
        "seconds": run.number("seconds"),
        "seed": run.summary.get("seed"),
    }


def _told_apart(jobs: list[dict[str, Any]], known: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Jobs with further overrides, where runs of equal ones differ in another setting.

    Several commands may share the folder of a sweep, and a job lists only what its command varied.
    """
    recorded = {folder: telling_settings(run) for folder, run in known.items() if run.settings}
    alike: dict[tuple[tuple[str, str], ...], list[dict[str, str]]] = {}
    for job in jobs:
        if (settings := recorded.get(str(job.get("folder")))) is not None:
            alike.setdefault(_values_of(job), []).append(settings)
    keys = {key for settings in alike.values() for key in differing(settings)}
    if not keys:
        return jobs
    told = []
    for job in jobs:
        settings = recorded.get(str(job.get("folder")), {})
        more = named({key: settings[key] for key in sorted(keys & settings.keys())})
        typed = [*job["overrides"], *(f"{key}={value}" for key, value in more.items())]
        told.append(job | {"overrides": typed})
    return told


def _values_of(job: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The overrides of a job by key, without its seed and fold."""
    typed = [str(line).partition("=") for line in job["overrides"]]
    return tuple((key, value) for key, _, value in typed if key not in REPEATS)


def settings_of(jobs: Sequence[Mapping[str, Any]], metric: str) -> list[Setting]:
    """The settings of a sweep's jobs, which are entries of sweep.json, compared by a metric."""
    by_values: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for job in jobs:
        by_values.setdefault(_values_of(job), []).append(job)
    return [_setting(dict(values), alike, metric) for values, alike in by_values.items()]


def _setting(values: dict[str, str], jobs: Sequence[Mapping[str, Any]], metric: str) -> Setting:
    states = [str(job.get("state")) for job in jobs]
    by_repeat: dict[tuple[str, ...], list[float]] = {}
    typed: set[str] = set()
    for number, job in enumerate(jobs):
        own = dict(str(line).split("=", 1) for line in job["overrides"] if "=" in str(line))
        typed |= own.keys()
        seed = own.get("seed", job.get("seed"))
        repeat = (str(seed if seed is not None else f"job {number}"), own.get("data.fold", ""))
        scores = by_repeat.setdefault(repeat, [])
        score = _number(job.get("metric"))
        if score is not None and job.get("state") in (FINISHED, PRUNED):
            scores.append(score)
    return Setting(
        values,
        state=next((s for s in (PRUNED, FINISHED, FAILED) if s in states), states[0]),
        scores=tuple(fmean(scores) for scores in by_repeat.values() if scores),
        seconds=sum(_number(job.get("seconds")) or 0.0 for job in jobs),
        repeats=repeats_of(typed),
        num_repeats=len(by_repeat),
        apart=tuple(key for key in values if tells_apart(key, metric)),
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
