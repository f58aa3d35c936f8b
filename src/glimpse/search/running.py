"""Run a search: start a trial whenever a worker is free, until the record has all its trials.

A trial is suggested only when it can start, so that the suggestion uses all results so far and no
worker waits for another. Several processes may run the same search. They share its record, and each
trial runs in only one of them.
"""

import time
from collections import Counter
from contextlib import closing
from functools import partial
from statistics import fmean, stdev

from hydra.plugins.launcher import Launcher
from optuna.trial import FrozenTrial, TrialState

from glimpse.command import in_shell, to_type
from glimpse.errors import DIVERGED, Interrupted, UserError
from glimpse.folder_lock import is_held
from glimpse.monitor import monitor_of
from glimpse.runs.folder import summary_of
from glimpse.runs.sweep import NAME
from glimpse.search.halving import promotable, waits
from glimpse.search.study import AGAIN
from glimpse.search.trials import Trials
from glimpse.sweeps.composing import Composer
from glimpse.sweeps.continuing import LOOK_SECONDS, print_start, print_stop, what_then
from glimpse.sweeps.jobs import Job
from glimpse.sweeps.launching import Runs, num_at_once, open_runner, stopped
from glimpse.sweeps.record import Record
from glimpse.sweeps.runner import Outcome
from glimpse.sweeps.standing import Standing, left_text
from glimpse.sweeps.state import DONE, Found, State
from glimpse.text import decimals, plural

STATES = {  # of a trial whose run folder has no status
    TrialState.COMPLETE: State.FINISHED,
    TrialState.PRUNED: State.PRUNED,
    TrialState.FAIL: State.FAILED,
    TrialState.RUNNING: State.INTERRUPTED,
}


class Search:
    """One command's run of a search.

    Args:
        composer: Composes the jobs' configurations.
        trials: The trials, with the record.
        launcher: Hydra's launcher, which runs the jobs.
    """

    def __init__(self, composer: Composer, trials: Trials, launcher: Launcher) -> None:
        self.composer = composer
        self.trials = trials
        self.study = trials.study
        self.launcher = launcher
        self.num_trials = int(composer.config.hydra.sweeper.n_trials)
        monitor = monitor_of(composer.config)
        self.metric = monitor.name
        self.record = Record(composer.folder, monitor, num_planned=self.num_trials)
        self._rows: dict[str, Job] = {}  # of the table, by the name of the job
        self._seconds: list[float] = []  # of the jobs that ended, for the time left
        self._gone: list[Job] = []  # of ended trials, but without a readable summary
        self._note_earlier()

    def print_plan(self) -> None:
        """`sweep.plan=true`: print the trials so far, and the time that the others will take."""
        for trial in filter(self._is_open, self.study.trials()):
            first = self.trials.jobs(trial)[0]
            folder = self.composer.folder_of(first)
            summary = summary_of(folder)
            has_ended = summary.get("status") in list(State) and not is_held(folder)
            state = State(summary["status"]) if has_ended else self._state(trial)
            row = self._rows.setdefault(first.name, first)
            self.record.found[row] = Found(state, "", summary)
        self.record.print_table()
        print(f"{self._counted()}; {self._left(num_at_once(self.launcher)) or 'nothing to do'}")

    def run(self) -> None:
        """Run the missing trials, and print a summary.

        Raises:
            UserError: a trial neither finished nor diverged.
            Interrupted: the search was told to stop.
        """
        print_start(self.composer)
        print(
            f"{self._counted()} so far, {self.num_trials} planned, in {self.composer.folder}",
            flush=True,
        )
        retry = self.composer.config.sweep.retry_failed
        runs = open_runner(
            self.launcher,
            self.composer,
            retry_failed=retry,
            titles=lambda job: f"{self._called(job)} ({job})",
            afterwards=self._afterwards,
        )
        with closing(runs) as runner:
            try:
                if retry:
                    self._begin_failed(runner)
                self._run(runner)
            except Interrupted as stop:
                self._stop(runner, stop.signal_number)
                raise
        self._note_earlier()  # what other processes trained meanwhile
        self.record.save()
        self._sum_up()

    def _run(self, runner: Runs) -> None:
        is_free = runner.num_at_once > 1  # their output goes to files
        left = partial(self._left_of, runner)
        with closing(Standing(left, is_free=is_free)) as standing:
            while True:
                self._take_up(runner)
                self._fill(runner)
                has_others = self._has_others()
                if not runner.num_open:
                    if not has_others:
                        return
                    time.sleep(LOOK_SECONDS)
                    continue
                outcome = runner.next(LOOK_SECONDS if has_others else standing.seconds)
                if outcome is not None:
                    self._take(outcome, runner)
                    standing.postpone()
                standing.show()

    def _fill(self, runner: Runs) -> None:
        """Start a trial for each free worker."""
        while runner.num_open < runner.num_at_once and (trial := self._next_trial()):
            self._begin(trial, runner)

    def _next_trial(self) -> FrozenTrial | None:
        """The trial that should start or continue now."""
        study = self.study
        if not study.levels:
            return study.ask(self.num_trials)
        trials = study.trials()
        waiting = [trial for trial in trials if waits(trial, study.levels)]
        busy = {t.number for t in waiting if self.trials.is_running(t) or self._is_elsewhere(t)}
        if trial := promotable(trials, study.levels, study.mode, busy):
            return trial
        trial = study.ask(self.num_trials)
        died = self.trials.interrupted
        is_left = (t for t in trials if not (t.state.is_finished() or t in waiting))
        is_over = not busy and all(t.number in died for t in is_left)
        if trial is None and is_over:
            if not any(trial.state == TrialState.COMPLETE for trial in trials):
                return promotable(trials, study.levels, study.mode, one_in=1)
            study.prune_waiting(died)
        return trial

    def _is_elsewhere(self, trial: FrozenTrial) -> bool:
        """Whether another process is working on a trial that is not ours."""
        return any(is_held(self.composer.folder_of(job)) for job in self.trials.jobs(trial))

    def _take_up(self, runner: Runs) -> None:
        """Continue trials on which no process is working."""
        for trial in self.study.trials():
            if self._is_open(trial) and not self._is_elsewhere(trial):
                self._begin(trial, runner)

    def _is_open(self, trial: FrozenTrial) -> bool:
        """Whether a trial should run, but not here: another process started it, or left it."""
        is_over = trial.state.is_finished() or waits(trial, self.study.levels)
        return not is_over and not self.trials.is_ours(trial)

    def _has_others(self) -> bool:
        """Whether other processes have trials, which they may have started only a moment ago."""
        trials = [t for t in self.study.trials() if not t.state.is_finished()]
        held = (t for t in trials if not self.trials.is_ours(t) and self._is_elsewhere(t))
        return any(map(self._is_open, trials)) or any(held)

    def _begin_failed(self, runner: Runs) -> None:
        """Try failed trials again, each as a new trial. The record keeps the failed ones.

        Trials with the same values share their jobs, so one of them is enough. Those that diverged
        would diverge again.
        """
        latest = {self.trials.jobs(trial)[0].name: trial for trial in self.study.trials()}
        for failed in latest.values():
            if failed.state != TrialState.FAIL or self._has_diverged(failed):
                continue
            if (trial := self.study.again(failed)) is not None:
                self._begin(trial, runner)

    def _has_diverged(self, trial: FrozenTrial) -> bool:
        rows = [self._rows[job.name] for job in self.trials.jobs(trial) if job.name in self._rows]
        return any(DIVERGED in self.record.found[row].reason for row in rows)

    def _begin(self, trial: FrozenTrial, runner: Runs) -> None:
        jobs = self.trials.begin(trial)
        for job in jobs:
            runner.submit(job)
        if not jobs:  # its jobs have ended, or run for another trial with the same values
            print(
                f"{self._name(trial.number)} repeats an earlier one ({self.trials.jobs(trial)[0]})"
            )

    def _take(self, outcome: Outcome, runner: Runs) -> None:
        """Record how a job ended, and submit the jobs that can start now."""
        job, found = outcome.job, outcome.found
        for following in self.trials.end(outcome):
            runner.submit(following)
        if found.state is State.RUNNING:  # another process has started it in the meantime
            return
        self.record.note(self._rows.setdefault(job.name, job), found)
        if found.seconds is not None:
            self._seconds.append(found.seconds)
        self._print_end(job, found, self._left_of(runner))
        if self.composer.config.sweep.fail_fast and _is_mistake(found):
            self.record.save()
            raise UserError(f"sweep.fail_fast=true ends the search: {job}: {found.reason}")

    def _stop(self, runner: Runs, signal_number: int) -> None:
        """After Ctrl-C or SIGTERM: let the running jobs save, and print how to continue."""
        for outcome in stopped(runner, signal_number):
            row = self._rows.setdefault(outcome.job.name, outcome.job)
            self.record.found[row] = outcome.found
            self.trials.end(outcome)
        self.record.save()
        print_stop(self._counted(), self.composer)

    def _note_earlier(self) -> None:
        """Fill the table with the jobs of trials that ended before, or in another process."""
        for trial in self.study.trials():
            has_ended = trial.state.is_finished() or waits(trial, self.study.levels)
            for i, job in enumerate(self.trials.jobs(trial) if has_ended else ()):
                summary = summary_of(self.composer.folder_of(job))
                if i and not summary:
                    continue  # a seed that was left out
                row = self._rows.setdefault(job.name, job)
                before = self.record.found.get(row)
                if before and before.state is State.REFUSED:
                    continue  # the summary is that of another configuration
                if before and (not summary or summary == before.summary):
                    continue  # a repeated trial
                if trial.state == TrialState.FAIL:
                    refused = self.composer.look(job)  # such as for another run in its folder
                    if refused.state is State.REFUSED:
                        self.record.found[row] = refused
                        continue
                known = summary.get("status") in list(State)
                state = State(summary["status"]) if known else STATES[trial.state]
                if not summary and trial.value is not None and self.trials.num_seeds == 1:
                    self._gone.append(row)
                    summary = {"monitor": self.metric, "metrics": {self.metric: trial.value}}
                found = Found(state, str(summary.get("error", "")), summary)
                self.record.found[row] = found
                if found.seconds is not None and not before:
                    self._seconds.append(found.seconds)

    # Output -----------------------------------------------------------------------------------

    def _counted(self) -> str:
        """Such as "12 trials (10 finished, 2 pruned)"."""
        trials = self.study.trials()
        counts = Counter(str(self._state(trial)) for trial in trials)
        parts = ", ".join(f"{number} {state}" for state, number in counts.items())
        number = plural(len(trials), "trial")
        return f"{number} ({parts})" if parts else number

    def _state(self, trial: FrozenTrial) -> State:
        """How a trial ended; if it is open, whether a process works on it."""
        if trial.state.is_finished() or not self._is_elsewhere(trial):
            return STATES[trial.state]
        return State.RUNNING

    def _afterwards(self, job: Job) -> str:
        """What will be left after a job that runs alone."""
        return self._left(1, num_more_ended=1)

    def _left_of(self, runner: Runs) -> str:
        """What is left while jobs run. Other launchers may return several ended jobs at once."""
        return self._left(runner.num_at_once, num_more_ended=self.trials.num_ending(runner.ended))

    def _left(self, at_once: int, *, num_more_ended: int = 0) -> str:
        """The number of trials left, and the time that they take at the mean time so far.

        A trial that waits at a rung is not counted, because it may never be continued.
        """
        ended = sum(
            (t.state.is_finished() or waits(t, self.study.levels)) and AGAIN not in t.user_attrs
            for t in self.study.trials()
        )
        num_left = max(0, self.num_trials - ended - num_more_ended)
        seconds = None
        if num_left and self._seconds:
            rounds = num_left / min(at_once, num_left)
            seconds = fmean(self._seconds) * self.trials.num_seeds * rounds
        return left_text(num_left, "trial", seconds)

    def _print_end(self, job: Job, found: Found, left: str) -> None:
        is_waiting = self.study.levels and found.state is State.PRUNED
        how = "paused" if is_waiting else found.state
        self.record.print_end(f"{self._called(job)} {how}", job, found, left)

    def _called(self, job: Job) -> str:
        """Such as "trial 3 of 9", or "trial 3 again"."""
        name = self._name(job.number // self.trials.num_seeds)
        return name if name.endswith(" again") else f"{name} of {self.num_trials}"

    def _name(self, number: int) -> str:
        """Such as "trial 3", or "trial 3 again". Repetitions of failed trials have no numbers."""
        trials = self.study.trials()
        again = ""
        while (first := trials[number].user_attrs.get(AGAIN)) is not None:
            number, again = first, " again"
        place = sum(AGAIN not in trial.user_attrs for trial in trials[: number + 1])
        return f"trial {place}{again}"

    def _sum_up(self) -> None:
        """Print the table, the best trial, and the commands that train it and report the search.

        Raises:
            UserError: a trial neither finished nor diverged, or none finished.
        """
        self.record.print_table()
        if self._gone:
            names = ", ".join(job.name for job in self._gone)
            print(
                f"only the search's record still has the results of {names}: their folders have no "
                "readable summary.json"
            )
        print(self._counted())
        sign = 1 if self.study.mode == "max" else -1
        finished = [t for t in self.study.trials() if t.state == TrialState.COMPLETE]
        best = max(finished, key=lambda t: sign * (t.value or 0.0), default=None)
        if best is not None:
            print(
                f"best: {self._name(best.number)}, {self.metric} {self._score(best)}; to train it, type:"
            )
            print(f"  {to_type(*self.trials.command(best))}")
            print(
                f"to see what mattered, type: glimpse report {in_shell(str(self.composer.folder))}"
            )
        wrong = [found for found in self.record.found.values() if _is_mistake(found)]
        if wrong:
            counts = Counter(found.state for found in wrong)
            raise UserError(
                f"{plural(len(wrong), 'job')} did not finish {what_then(counts, self.composer)}"
            )
        if best is None:
            raise UserError(f"no trial finished: the reasons are in {self.composer.folder / NAME}")

    def _score(self, trial: FrozenTrial) -> str:
        """A trial's score; with several seeds, as mean ± standard deviation."""
        jobs = [job for job in self.trials.jobs(trial) if job.name in self._rows]
        found = [self.record.found[self._rows[job.name]] for job in jobs]
        metrics = [f.metric for f in found if f.metric is not None]
        spread = (
            f" ± {decimals(stdev(metrics))} over {len(metrics)} seeds" if len(metrics) > 1 else ""
        )
        assert trial.value is not None
        return f"{decimals(trial.value)}{spread}"


def _is_mistake(found: Found) -> bool:
    """Whether a job ended in an unexpected way. In a search, divergence is expected."""
    is_well = found.state in (*DONE, State.RUNNING)
    return not is_well and DIVERGED not in found.reason
