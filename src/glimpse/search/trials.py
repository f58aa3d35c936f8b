"""From trials to jobs and back: each trial has one job per seed, and its score is their mean.

The first seed of a trial is trained first. If it fails or lags behind, the others are not trained.
Trials with the same values share their jobs, so nothing is trained twice.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from optuna.trial import FrozenTrial

from glimpse.search.halving import next_rung
from glimpse.search.space import Space
from glimpse.search.study import AGAIN, Study
from glimpse.sweeps.jobs import Job, name_in, part_of
from glimpse.sweeps.runner import Outcome
from glimpse.sweeps.state import Found, State


class Trials:
    """The trials that this process works on.

    Args:
        study: The record.
        space: The axes of the search.
        shared: The overrides that all trials share.
        folder: The folder of the jobs.
        seeds: The seeds that each trial is trained with.
        is_watched: Whether a pruner watches the first seed of each trial.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        shared: Sequence[str],
        folder: Path,
        *,
        seeds: Sequence[int],
        is_watched: bool,
    ) -> None:
        self.study = study
        self.num_seeds = len(seeds)
        self._space = space
        self._folder = folder
        self._seeds = [f"seed={seed}" for seed in seeds] if len(seeds) > 1 else []
        self._shared = [line for line in shared if not (self._seeds and line.startswith("seed="))]
        self._is_watched = is_watched
        self.levels = study.levels
        self._jobs: dict[int, list[Job]] = {}  # of the trials that are not complete, by number
        self._found: dict[str, Found] = {}  # by the name of the job
        self._submitted: set[str] = set()
        self.interrupted: set[int] = set()  # numbers of the trials whose process died here

    def jobs(self, trial: FrozenTrial) -> list[Job]:
        """The jobs of a trial, one for each seed."""
        lines = self.values(trial)
        watch = [f"hydra.sweeper.trial={trial.number}"] if self._is_watched else []
        if self.levels:
            watch.append(f"hydra.sweeper.until={next_rung(trial, self.levels)}")
        seeded = [[*lines, seed] for seed in self._seeds] or [lines]
        return [
            Job(
                trial.number * self.num_seeds + i,
                (*self._shared, *varying, *([] if i else watch)),
                tuple(varying),
                name_in(self._folder, [part_of(line) for line in varying]),
            )
            for i, varying in enumerate(seeded)
        ]

    def values(self, trial: FrozenTrial) -> list[str]:
        """The values of a trial, as overrides."""
        return [f"{key}={axis.typed(trial.params[key])}" for key, axis in self._space.items()]

    def command(self, trial: FrozenTrial) -> list[str]:
        """The words that train a trial's values without the search, with all of its seeds."""
        own = [line for line in self._shared if not line.startswith(("name=", "sweep."))]
        words = [*own, *self.values(trial)]
        if not self._seeds:
            return words
        return ["-m", *words, f"seed={','.join(line.partition('=')[2] for line in self._seeds)}"]

    def begin(self, trial: FrozenTrial) -> list[Job]:
        """Start or continue a trial. Returns the jobs to submit now."""
        if self.levels and self._repeats(trial):
            self.study.prune(trial.number)  # the earlier one waits, and continues instead
            return []
        if self.levels:
            self.study.proceed(trial.number, next_rung(trial, self.levels))
        jobs = self._jobs[trial.number] = self.jobs(trial)
        again = (State.RUNNING, State.PRUNED) if self.levels else (State.RUNNING,)
        for job in jobs:
            if (found := self._found.get(job.name)) and found.state in again:
                del self._found[job.name]  # another process had it, or it waited
                self._submitted.discard(job.name)
        return self._advance(trial.number)

    def _repeats(self, trial: FrozenTrial) -> bool:
        """Whether an earlier trial tried the same values, and this one does not do so on purpose."""
        values, earlier = self.values(trial), self.study.trials()[: trial.number]
        return AGAIN not in trial.user_attrs and values in map(self.values, earlier)

    def is_ours(self, trial: FrozenTrial) -> bool:
        """Whether this process is working on the trial, or did until the trial was interrupted."""
        return self.is_running(trial) or trial.number in self.interrupted

    def is_running(self, trial: FrozenTrial) -> bool:
        """Whether this process is working on the trial."""
        return trial.number in self._jobs

    def end(self, outcome: Outcome) -> list[Job]:
        """Record how a job ended, and each trial that is complete now.

        Returns:
            The jobs to submit now.
        """
        name = outcome.job.name
        self._found[name] = outcome.found
        waiting = [n for n, jobs in self._jobs.items() if name in {job.name for job in jobs}]
        return [job for number in waiting for job in self._advance(number)]

    def num_ending(self, ended: Iterable[Outcome]) -> int:
        """The number of trials that end once these ended jobs are recorded."""
        names = {o.job.name for o in ended if not (self.levels and o.found.state is State.PRUNED)}
        names |= self._found.keys()
        return sum(all(job.name in names for job in jobs) for jobs in self._jobs.values())

    def _advance(self, number: int) -> list[Job]:
        """Close a trial if its jobs have ended. Otherwise, return the jobs that can start."""
        jobs = self._jobs[number]
        known = [self._found[job.name] for job in jobs if job.name in self._found]
        states = {found.state for found in known}
        scores = [found.metric for found in known]
        if states & {State.FAILED, State.REFUSED}:
            self.study.fail(number)
        elif State.PRUNED in states:
            if self.levels and scores[0] is not None:
                self.study.reach(number, scores[0])  # it waits there
            else:
                self.study.prune(number)
        elif State.INTERRUPTED in states:
            self.interrupted.add(number)
        elif State.RUNNING in states:
            pass  # in another process, which records it
        elif None in scores:
            self.study.fail(number)  # it finished without a validation
        elif len(known) == len(jobs):
            self.study.finish(number, fmean(score for score in scores if score is not None))
        else:
            ready = jobs if known else jobs[:1]
            new = [job for job in ready if job.name not in self._submitted]
            self._submitted |= {job.name for job in new}
            return new
        del self._jobs[number]
        return []
