"""The record of a search: an Optuna study on disk. It also suggests the next values.

The next values are a function of the seed, the trial's number and the trials recorded so far. An
interrupted search therefore continues like an uninterrupted one. Optuna's own samplers keep a state
that is lost with the process, so a search that is continued with them would repeat its first
suggestions.

The sampler is the tree-structured Parzen estimator over all axes jointly (Watanabe 2023,
arXiv:2304.11127), with the defaults of Optuna 5. Optuna ignores failed trials, and would therefore
suggest diverging values again and again. Here, the sampler treats them as worse than all others.
"""

import functools
import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import OptunaError
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from glimpse.errors import UserError, first_line
from glimpse.files import is_own_file
from glimpse.search.halving import UNTIL, waits
from glimpse.search.space import Axis, Choice, Space

NAME = "search"  # the study's name in its file
LOCK = ".study.lock"
OVER_A_MILLION = 1_000_003  # as in seeding.py, which imports torch
SECONDS_TO_WAIT = 60  # for another process to finish writing
SAME, AGAIN = "same", "again"  # attributes of a study and of a trial
STORAGE_ERRORS = (OSError, OptunaError, SQLAlchemyError, json.JSONDecodeError)
# What Optuna also raises while it reads content that it did not write:
WRONG_CONTENT = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
READING_ERRORS = (*STORAGE_ERRORS, *WRONG_CONTENT)

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """The trials of a search, which several processes may read and extend at the same time.

    Args:
        path: The file, study.db or study.journal. It is created if there is none.
        space: The axes of the search.
        mode: "max" or "min": which values are better.
        seed: The seed of the suggestions.
        same: Settings that must not change when the search is continued, by key.
        defaults: The values of those that were not typed.
        levels: The rungs of successive halving, on which trials wait; empty without it.

    Raises:
        UserError: the file contains another search, or cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        space: Space,
        *,
        mode: str,
        seed: int,
        same: Mapping[str, str],
        defaults: Mapping[str, str] | None = None,
        levels: Sequence[int] = (),
    ) -> None:
        for file in (
            path,
            *(path.with_name(path.name + end) for end in ("-wal", "-journal", "-shm")),
        ):
            if os.path.lexists(file) and not is_own_file(path.parent, file):
                raise UserError(
                    f"{file}: expected a file of the search, found a link or no file: remove it"
                )
        self.path = path
        self.seed = seed
        self.mode = mode
        self.levels = tuple(levels)
        self._distributions = {key: distribution(axis) for key, axis in space.items()}
        self._lock = FileLock(path.parent / LOCK, timeout=SECONDS_TO_WAIT)
        with self._lock, in_one_line(path, READING_ERRORS):
            cut_torn_line(path)
            self._study = optuna.create_study(
                storage=open_storage(path),
                study_name=NAME,
                direction=_direction(mode),
                load_if_exists=True,
            )
            known = self._study.user_attrs.get(SAME)
            if known is None:
                self._study.set_user_attr(SAME, dict(same))
            known = dict(same if known is None else known)
        usual = defaults or {}
        for key in sorted(known.keys() | same.keys()):
            if known.get(key, usual.get(key)) != same.get(key, usual.get(key)):
                before, now = (_shown(key, found.get(key)) for found in (known, same))
                raise UserError(
                    f"{path.parent} contains another search, with {before} instead of {now}: type the "
                    "same command as before, or another name="
                )

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number.

        Raises:
            UserError: the file cannot be read, or has trials of other axes or values.
        """
        with in_one_line(self.path, READING_ERRORS):
            trials = self._study.get_trials(deepcopy=False)
        if any(trial.distributions != self._distributions for trial in trials):
            raise UserError(
                f"{self.path} contains trials of another search: type another name=, or move it elsewhere"
            )
        return trials

    def ask(self, most: int) -> FrozenTrial | None:
        """Start the next trial; None if there are already `most`, not counting repetitions."""
        with self._lock:
            trials = self.trials()
            if sum(AGAIN not in trial.user_attrs for trial in trials) >= most:
                return None
            known = [  # the curve of a trial that waits on a rung counts up to there
                _as_pruned(trial, trial.intermediate_values) if waits(trial, self.levels) else trial
                for trial in trials
            ]
            params = suggest(
                known, self._distributions, self.mode, seed=self.seed, number=len(trials)
            )
            with in_one_line(self.path):
                return self._begin(params, {})

    def again(self, failed: FrozenTrial) -> FrozenTrial | None:
        """Start a failed trial again, as a new one; None if another process has done so."""
        with self._lock, in_one_line(self.path):
            trials = self._study.get_trials(deepcopy=False)
            if any(trial.user_attrs.get(AGAIN) == failed.number for trial in trials):
                return None
            return self._begin(failed.params, {AGAIN: failed.number})

    def _begin(self, params: dict[str, Any], attributes: dict[str, Any]) -> FrozenTrial:
        self._study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=self._distributions,
                user_attrs=attributes,
            )
        )
        return self._study.get_trials(deepcopy=False)[-1]

    def proceed(self, number: int, until: int) -> None:
        """Record that a trial is trained until this rung, so that no process takes it for waiting."""
        with self._lock, in_one_line(self.path):
            trial = self._study.get_trials(deepcopy=False)[number]
            if not trial.state.is_finished():
                optuna.Trial(self._study, trial._trial_id).set_user_attr(UNTIL, until)

    def reach(self, number: int, value: float) -> None:
        """Record that a trial has reached the rung to which it was trained.

        The trial itself has usually reported this, but not if a new record is made from the run
        folders.
        """
        with self._lock, in_one_line(self.path):
            trial = self._study.get_trials(deepcopy=False)[number]
            until = trial.user_attrs[UNTIL]
            if not trial.state.is_finished() and (trial.last_step or 0) < until:
                optuna.Trial(self._study, trial._trial_id).report(value, until)

    def prune_waiting(self, but: Collection[int]) -> None:
        """Record that the trials that wait on a rung are stopped there, if no other trial is open.

        Args:
            but: The numbers of trials that do not count as open, because their processes died.
        """
        with self._lock, in_one_line(self.path):
            trials = self._study.get_trials(deepcopy=False)
            left = [t for t in trials if not t.state.is_finished() and t.number not in but]
            if all(waits(trial, self.levels) for trial in left):
                for trial in left:
                    self._study.tell(trial.number, state=TrialState.PRUNED)

    def finish(self, number: int, value: float) -> None:
        """Record the value of a trial that was trained to its end."""
        self._tell(number, value, None)

    def prune(self, number: int) -> None:
        """Record that a trial was stopped early."""
        self._tell(number, None, TrialState.PRUNED)

    def fail(self, number: int) -> None:
        """Record that a trial failed."""
        self._tell(number, None, TrialState.FAIL)

    def _tell(self, number: int, value: float | None, state: TrialState | None) -> None:
        # Two processes may report the same end: one may find the run finished before the other
        # has reported it.
        with self._lock, in_one_line(self.path):
            self._study.tell(number, value, state, skip_if_finished=True)


def suggest(
    trials: Sequence[FrozenTrial],
    distributions: Mapping[str, BaseDistribution],
    mode: str,
    *,
    seed: int,
    number: int,
) -> dict[str, Any]:
    """The values to try next.

    Args:
        trials: The trials so far. Running ones count as bad, so that two workers try different
            values.
        distributions: The axes of the search, by key.
        mode: "max" or "min": which values are better.
        seed: The seed of the search.
        number: The number of the new trial.
    """
    sampler = TPESampler(seed=(seed * OVER_A_MILLION + number) % 2**32)
    study = optuna.create_study(sampler=sampler, direction=_direction(mode))
    # A trial that was pruned before its first value ranks last.
    study.add_trials([_as_pruned(t, {}) if t.state == TrialState.FAIL else t for t in trials])
    return study.ask(dict(distributions)).params


def _as_pruned(trial: FrozenTrial, curve: Mapping[int, float]) -> FrozenTrial:
    """A trial, turned into one that was pruned after these values of epochs."""
    return optuna.create_trial(
        state=TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=dict(curve),
    )


def distribution(axis: Axis) -> BaseDistribution:
    """Optuna's description of an axis."""
    if isinstance(axis, Choice):
        return CategoricalDistribution(axis.values)
    if axis.is_whole:
        step = int(axis.step or 1)
        return IntDistribution(int(axis.low), int(axis.high), log=axis.is_log, step=step)
    return FloatDistribution(axis.low, axis.high, log=axis.is_log, step=axis.step)


def open_storage(path: Path) -> BaseStorage:
    """The storage in a file: a journal if its name ends in .journal, otherwise SQLite."""
    if path.suffix == ".journal":
        return JournalStorage(JournalFileBackend(os.fspath(path)))
    connect = functools.partial(sqlite3.connect, path.resolve(), timeout=SECONDS_TO_WAIT)
    settings = {"creator": connect, "poolclass": NullPool}  # which closes the file after each use
    return RDBStorage("sqlite://", engine_kwargs=settings)  # any characters in the path


def cut_torn_line(path: Path) -> None:
    """Remove the end of a journal that was not written completely, as on a full disk.

    Optuna would append to it, and could not read the line afterwards.
    """
    if path.suffix != ".journal" or not path.exists() or _ends_well(path):
        return
    lock = JournalFileSymlinkLock(os.fspath(path))  # a process may be writing the line now
    lock.acquire()
    try:
        if not _ends_well(path):
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    finally:
        lock.release()


def _ends_well(path: Path) -> bool:
    return path.read_bytes()[-1:] in (b"\n", b"")


def _direction(mode: str) -> StudyDirection:
    return StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE


@contextmanager
def in_one_line(path: Path, errors: tuple[type[Exception], ...] = STORAGE_ERRORS) -> Iterator[None]:
    """Turn the errors of a storage into one line."""
    try:
        yield
    except errors as error:
        remedy = ""
        if _is_damaged(_root(error)):
            remedy = ": move it elsewhere, and the same command makes it anew from the run folders"
        raise UserError(f"{path} cannot be read or written: {cause_of(error)}{remedy}") from error


def cause_of(error: BaseException) -> str:
    """The root cause of a storage error, such as a full disk. Optuna's message only guesses it."""
    return first_line(_root(error))


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_damaged(error: BaseException) -> bool:
    """Whether the content of a file is wrong. sqlite3 raises a subclass for all else."""
    return isinstance(error, WRONG_CONTENT) or type(error) is sqlite3.DatabaseError


def _shown(key: str, value: str | None) -> str:
    return f"{key}={value}" if value is not None else f"no {key}"
