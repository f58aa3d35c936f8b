"""The state of a job, read from its run folder, and whether the folder has the same settings.

Only the folder determines the state. A job is finished if its recorded configuration equals the
present one, apart from `IGNORED` keys, and its summary says that it is finished. Nothing heavy is
imported.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from glimpse import records
from glimpse.files import is_inside
from glimpse.folder_lock import is_held
from glimpse.monitor import DEFAULT
from glimpse.runs.folder import summary_of
from glimpse.runs.settings import MAX_EPOCHS, PLACES, settings_of
from glimpse.streams import printable
from glimpse.text import plural

# Keys that do not change what is computed; the number of epochs may grow: the run is extended.
IGNORED = frozenset((*PLACES, MAX_EPOCHS))


class State(StrEnum):
    """The state of a job, as the table and sweep.json name it."""

    NEW = "new"
    FINISHED = records.FINISHED
    INTERRUPTED = records.INTERRUPTED  # stopped or killed; it resumes from its checkpoint
    TO_EXTEND = "to extend"  # finished, and trainer.max_epochs now asks for more
    FAILED = records.FAILED
    PRUNED = records.PRUNED  # stopped early by a search, because it lagged behind
    REFUSED = "refused"  # its configuration has a mistake, or differs from the folder's
    RUNNING = "running"  # in another process


DONE = (State.FINISHED, State.PRUNED)  # nothing has gone wrong


@dataclass(frozen=True)
class Found:
    """The state of a job according to its run folder.

    Attributes:
        state: The job's state.
        reason: Why it failed, is refused or continues; one line, or empty.
        summary: The content of summary.json; empty if there is none.
    """

    state: State
    reason: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)

    def is_to_run(self, *, retry_failed: bool) -> bool:
        """Whether the job has something left to do here."""
        if self.state is State.FAILED:
            return retry_failed
        return self.state in (State.NEW, State.INTERRUPTED, State.TO_EXTEND)

    @property
    def metric(self) -> float | None:
        """The best value of the job's own monitor; None if it is not known."""
        return self.score(str(self.summary.get("monitor") or DEFAULT))

    def score(self, metric: str) -> float | None:
        """The value of a metric of the best checkpoint; None if it is not known."""
        return records.finite(records.mapping(self.summary.get("metrics")).get(metric))

    @property
    def seconds(self) -> float | None:
        """The time that all attempts took together."""
        return records.finite(self.summary.get("seconds"))


def look(folder: Path, settings: Mapping[str, str], *, is_ours: bool = False) -> Found:
    """Read the state of the job that would run in `folder` with these settings.

    Args:
        folder: The job's run folder, which need not exist.
        settings: The present configuration, in the form of `runs.settings.flat_settings`.
        is_ours: Whether this process holds the folder's lock.
    """
    if not is_inside(folder.parent, folder):
        return Found(State.REFUSED, f"{folder} is a link to another place: remove the link")
    if not (folder / records.SUMMARY).exists() and not (folder / records.ENVIRONMENT).exists():
        is_running = not is_ours and is_held(folder)
        return Found(State.RUNNING if is_running else State.NEW)  # nothing has been trained yet
    recorded = settings_of(folder)
    if not recorded:
        return Found(
            State.REFUSED,
            f"the configuration in {folder / '.hydra'} cannot be read; remove the folder to train again",
        )
    key = first_difference(recorded, settings)
    if key:
        return Found(State.REFUSED, _differs(key, recorded, settings))
    summary = summary_of(folder)
    status = summary.get("status")
    trained = _epochs(summary.get("max_epochs", recorded.get(MAX_EPOCHS)))
    asked = _epochs(settings.get(MAX_EPOCHS))
    ended_early = _epochs(summary.get("epochs")) < trained  # for example by early_stopping
    if status == State.FINISHED and (asked <= trained or ended_early):
        return Found(State.FINISHED, summary=summary)
    if not is_ours and is_held(folder):
        return Found(State.RUNNING, summary=summary)
    if status == State.FINISHED:
        more = "without a limit" if math.isinf(asked) else f"to {asked:g}"
        return Found(State.TO_EXTEND, f"from {plural(int(trained), 'epoch')} {more}", summary)
    if status in (State.FAILED, State.PRUNED):
        return Found(State(status), printable(str(summary.get("error", ""))), summary)
    return Found(State.INTERRUPTED, summary=summary)


def first_difference(recorded: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """The first key whose values differ; trainer.max_epochs only if it has become smaller."""
    for key in sorted(recorded.keys() | now.keys()):
        if key not in IGNORED and not _is_same(recorded.get(key), now.get(key)):
            return key
    if _epochs(now.get(MAX_EPOCHS)) < _epochs(recorded.get(MAX_EPOCHS)):
        return MAX_EPOCHS
    return None


def _is_same(one: str | None, other: str | None) -> bool:
    """Whether two values are equal; numbers may be written differently."""
    if one == other:
        return True
    if one is None or other is None:
        return False
    try:
        first, second = json.loads(one), json.loads(other)
    except (ValueError, RecursionError):
        return False
    booleans = isinstance(first, bool) or isinstance(second, bool)
    return bool(first == second) and not booleans


def _epochs(value: Any) -> float:
    """A number of epochs; unlimited if it is -1 or not known."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.inf
    return number if number >= 0 else math.inf


def _differs(key: str, recorded: Mapping[str, str], now: Mapping[str, str]) -> str:
    was, value = recorded.get(key), now.get(key)
    if was is None:
        trained = f"without {key}={value}"
    elif value is None:
        trained = f"with {key}={was}, which this command lacks"
    else:
        trained = f"with {key}={was}, not {value}"
    return f"its folder was trained {trained}: type name=<another name>, or remove the folder"
