"""The record of a sweep: sweep.json in its folder, and the table that it prints at its end.

The folder belongs to the name of the sweep, so sweep.json also keeps the jobs of earlier commands.
Several processes may write it; each replaces only the entries of its own jobs.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from glimpse.cli.table import print_table
from glimpse.files import write_json
from glimpse.folder_lock import FolderInUseError, held
from glimpse.monitor import Monitor
from glimpse.records import finite, json_or_empty, listed
from glimpse.runs.groups import tells_apart
from glimpse.runs.settings import REPEATS
from glimpse.runs.sweep import NAME, best_by_dataset, settings_of, without_removed
from glimpse.sweeps.jobs import Job
from glimpse.sweeps.state import DONE, Found, State
from glimpse.text import decimals, duration, plural

SAVE_SECONDS = 5.0  # between two saves
SAVE_PATIENCE = 30.0  # seconds to wait while an equal command saves
MAX_ROWS = 100  # of the table


class Record:
    """The states of a sweep's jobs.

    Args:
        folder: The sweep's folder.
        monitor: The metric that compares the jobs.
        num_planned: The number of trials that a search runs in all; None for a sweep over listed
            values.
    """

    def __init__(self, folder: Path, monitor: Monitor, *, num_planned: int | None = None) -> None:
        self.folder = folder
        self.monitor = monitor
        self.num_planned = num_planned
        self.found: dict[Job, Found] = {}
        self._saved = 0.0

    def begin(self, states: Mapping[Job, Found]) -> None:
        """Record the states of several jobs, without writing."""
        self.found |= states

    def note(self, job: Job, found: Found) -> None:
        """Record the state of a job; sweep.json is written every few seconds."""
        self.found[job] = found
        if time.monotonic() > self._saved + SAVE_SECONDS:
            with suppress(FolderInUseError):  # the next save includes it
                self.save()

    @property
    def counts(self) -> Counter[State]:
        """How many jobs are in each state."""
        return Counter(found.state for found in self.found.values())

    @property
    def best(self) -> Job | None:
        """The finished job with the best metric; the first one in case of a tie."""
        scored = [
            (self.monitor.sign * score, job)
            for job, found in self.found.items()
            if found.state is State.FINISHED
            and (score := found.score(self.monitor.name)) is not None
        ]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def save(self) -> None:
        """Write sweep.json."""
        with held(self.folder, patience=SAVE_PATIENCE):
            entries = _entries(self.folder, self.monitor.name)
            for job, found in self.found.items():
                entries[job.name] = _updated(entries.get(job.name, {}), self._entry(job, found))
            finished = [
                name
                for name, entry in entries.items()
                if entry.get("state") == State.FINISHED and finite(entry.get("metric")) is not None
            ]
            sign = self.monitor.sign
            best = max(finished, key=lambda name: sign * entries[name]["metric"], default=None)
            lines = (str(line) for e in entries.values() for line in listed(e.get("overrides")))
            if _has_no_best(_varied(lines), self.monitor.name):
                best = None
            content = {
                "command": sys.argv,
                "metric": self.monitor.name,
                "mode": self.monitor.mode,
                "num_planned": self.num_planned,
                "best": best,
                "counts": dict(Counter(str(entry.get("state")) for entry in entries.values())),
                "jobs": [{"folder": name} | dict(entry) for name, entry in entries.items()],
            }
            write_json(self.folder / NAME, content)
        self._saved = time.monotonic()

    def _entry(self, job: Job, found: Found) -> dict[str, Any]:
        entry = {
            "overrides": list(job.varying),
            "state": str(found.state),
            "metric": found.score(self.monitor.name),
            "seconds": found.seconds,
        }
        return entry | ({"reason": found.reason} if found.reason else {})

    def told_best(self) -> str:
        """A line that names the best job; empty if none has finished.

        If seeds or folds vary, the line gives the mean of the best setting instead. If datasets
        vary, there is a line for each.
        """
        metric, best = self.monitor.name, self.best
        if best is None:
            return ""
        varied = _varied(line for job in self.found for line in job.varying)
        if not _has_no_best(varied, metric) and all(varied[key] <= 1 for key in REPEATS):
            score = self.found[best].score(metric)
            assert score is not None
            return f"best: {best}  {metric} {decimals(score)}  {self.folder / best.name}"
        entries = [self._entry(job, found) for job, found in self.found.items()]
        settings = settings_of(entries, metric)
        told = []
        for dataset, setting in best_by_dataset(settings, self.monitor.mode).items():
            is_one = setting.num_repeats == 1 and setting.repeats != "run"
            over = f" over 1 {setting.repeats}" if is_one else ""
            what = "best" if setting.typed else "mean"
            place = f" on {dataset}" if dataset else ""
            typed = f"{setting.typed}  " if setting.typed else ""
            told.append(f"{what}{place}: {typed}{metric} {setting}{over}")
        return "\n".join(told)

    def print_end(self, what: str, job: Job, found: Found, left: str) -> None:
        """Print how a job ended.

        Args:
            what: Such as "job 3 of 9 finished".
            job: The job.
            found: How it ended.
            left: What is left of the sweep, as text.
        """
        if found.state not in DONE:
            print(f"{what} ({job}): {found.reason}", file=sys.stderr, flush=True)
            return
        took = "" if found.seconds is None else f" in {duration(found.seconds)}"
        score = found.score(self.monitor.name)
        told = "" if score is None else f", {self.monitor.name} {decimals(score)}"
        print(f"{what}{took}{told} ({job}){f'; {left}' if left else ''}", flush=True)

    def print_table(self) -> None:
        """Print a row for each job, in the order of the sweep.

        If there are more than `MAX_ROWS` jobs, print the unfinished and the best ones.
        """
        rows = list(self.found.items())
        if len(rows) > MAX_ROWS:
            ranked = sorted(rows, key=self._rank)[:MAX_ROWS]
            rows = [row for row in rows if row in ranked]
        print_table(
            ("job", "state", self.monitor.name, "time", "folder"),
            [
                (
                    str(job),
                    str(found.state),
                    "" if score is None else decimals(score),
                    "" if found.seconds is None else duration(found.seconds),
                    job.name,
                )
                for job, found in rows
                for score in [found.score(self.monitor.name)]
            ],
        )
        print(f"the folders are in {self.folder}")
        if len(rows) < len(self.found):
            print(f"and {plural(len(self.found) - len(rows), 'more job')}, in {self.folder / NAME}")

    def _rank(self, row: tuple[Job, Found]) -> tuple[bool, float]:
        """Unfinished jobs first, then the best."""
        found = row[1]
        score = found.score(self.monitor.name) or 0.0
        return found.state is State.FINISHED, -self.monitor.sign * score


def _updated(before: Mapping[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of sweep.json. A refused job keeps the result that its folder still contains."""
    if entry["state"] != State.REFUSED:
        return entry
    return entry | {key: before[key] for key in ("metric", "seconds") if key in before}


def _varied(lines: Iterable[str]) -> Counter[str]:
    """The number of different overrides of each key."""
    return Counter(line.partition("=")[0] for line in set(lines))


def _has_no_best(varied: Counter[str], metric: str) -> bool:
    """Whether no job of a sweep can be the best, because folds or datasets vary, or only seeds.

    Args:
        varied: The number of different overrides of each key.
        metric: The metric that compares the jobs. If it is a loss, different losses count too.
    """
    is_apart = any(number > 1 and tells_apart(key, metric) for key, number in varied.items())
    return is_apart or "data.fold" in varied or varied.keys() == {"seed"}


def _entries(folder: Path, metric: str) -> dict[str, Mapping[str, Any]]:
    """The jobs in sweep.json by the names of their folders; empty if it cannot be read.

    If the jobs were compared by another metric, their values are left out; so are the results of
    removed run folders.
    """
    content = json_or_empty(folder, NAME)
    found = [job for job in listed(content.get("jobs")) if isinstance(job, dict)]
    jobs = [without_removed(folder, job) for job in found]
    of_another = {} if content.get("metric") == metric else {"metric": None}
    return {str(job.pop("folder", "?")): job | of_another for job in jobs}
