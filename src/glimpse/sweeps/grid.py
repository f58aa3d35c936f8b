"""Run a sweep over listed values, from top to bottom.

List the jobs, find those that are not done, run them, and print the table.
"""

import re
import time
from collections.abc import Sequence
from contextlib import closing

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from glimpse.config.explain import explain
from glimpse.errors import Interrupted, UserError
from glimpse.files import write_text
from glimpse.monitor import monitor_of
from glimpse.sweeps.composing import Composer, require_folder_name
from glimpse.sweeps.continuing import LOOK_SECONDS, print_start, print_stop, what_then
from glimpse.sweeps.estimate import Estimate
from glimpse.sweeps.jobs import Grid, Job, grid
from glimpse.sweeps.launching import Runs, num_at_once, open_runner, stopped
from glimpse.sweeps.record import Record
from glimpse.sweeps.standing import Standing, left_text
from glimpse.sweeps.state import DONE, Found, State
from glimpse.text import duration, plural

SEED = re.compile(r"seed=\d{1,9}")  # in the range of seeds


def run_grid(
    lines: Sequence[str], context: HydraContext, config: DictConfig, launcher: Launcher
) -> None:
    """Run every combination of the listed values, except those that are done.

    Args:
        lines: The overrides as typed, with lists of values.
        context: Hydra's loader.
        config: The sweep's configuration, as Hydra composed it.
        launcher: Hydra's launcher, which runs the jobs.

    Raises:
        UserError: a job failed or was refused, or the sweep itself has a mistake.
        Interrupted: the sweep was told to stop; the running jobs have saved.
    """
    require_folder_name(config.name)
    loader = context.config_loader
    composer = Composer(loader, config)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(lines))
    made = grid(parsed, composer.folder)
    num_at_once(launcher)  # a wrong number is reported before anything is composed
    _require_choices(composer, made.jobs)
    for remark in made.remarks:
        print(remark)
    sweep = _Sweep(composer, made, launcher)
    if config.sweep.plan:
        sweep.print_plan()
    else:
        sweep.run()


def _require_choices(composer: Composer, jobs: Sequence[Job]) -> None:
    """Compose the first job, and the first with each choice of a file, to find mistakes at once.

    A key that only some of the choices lack is a mistake of their jobs, which are refused.

    Raises:
        Exception: Hydra's; `explain` turns it into one line.
    """
    seen: set[str] = set()
    errors: list[ConfigCompositionException] = []
    num_composed = 0
    for job in jobs:
        choices = {line for line in job.varying if not composer.only_sets_a_value(line)}
        if not seen or choices - seen:
            num_composed += 1
            try:
                composer.compose(job)
            except MissingConfigException:  # no such file
                raise
            except ConfigCompositionException as error:
                errors.append(error)
        seen |= choices | {""}
    if errors and len(errors) == num_composed:
        raise errors[0]


def _states(
    composer: Composer, jobs: Sequence[Job], *, retry_failed: bool
) -> tuple[dict[Job, Found], list[Job]]:
    """The state of each job before anything runs, and the jobs to run.

    Raises:
        UserError: all jobs to run have the same mistake.
    """
    found = {job: composer.look(job) for job in jobs}
    todo = [job for job in jobs if found[job].is_to_run(retry_failed=retry_failed)]
    found |= _refused(composer, todo, num_jobs=len(jobs))
    return found, [job for job in todo if found[job].state is not State.REFUSED]


def _refused(composer: Composer, todo: Sequence[Job], *, num_jobs: int) -> dict[Job, Found]:
    """The jobs with a mistake in their configuration.

    The first job with each value is checked, and then the others with a value that no correct job
    has: to check all jobs of a large sweep would take minutes. One seed is as good as another.

    Raises:
        UserError: the first job with each value has the same mistake, so it is in settings that all
            jobs share.
    """
    refused: dict[Job, Found] = {}
    checked: set[Job] = set()
    correct: set[str] = set()

    def require(job: Job) -> None:
        checked.add(job)
        try:
            composer.checked(job)
        except Exception as error:
            refused[job] = Found(State.REFUSED, explain(error, job.overrides))
        else:
            correct.update(_telling(job))

    seen: set[str] = set()
    for job in todo:
        if not checked or not seen.issuperset(_telling(job)):
            require(job)
        seen.update(_telling(job))
    messages = {found.reason for found in refused.values()}
    if len(todo) == num_jobs > 1 and len(refused) == len(checked) and len(messages) == 1:
        raise UserError(messages.pop())
    for job in todo:
        if job not in checked and not correct.issuperset(_telling(job)):
            require(job)
    return refused


def _telling(job: Job) -> list[str]:
    """The overrides that may be a mistake in one job and not in another."""
    return [line for line in job.varying if not SEED.fullmatch(line)]


class _Sweep:
    """One command's run of a sweep."""

    def __init__(self, composer: Composer, made: Grid, launcher: Launcher) -> None:
        self.composer = composer
        self.jobs = made.jobs
        self.launcher = launcher
        self.settings = composer.config.sweep
        self.record = Record(composer.folder, monitor_of(composer.config))
        self.estimate = Estimate()
        self.open: set[Job] = set()  # jobs that run or wait here
        self.elsewhere: list[Job] = []  # jobs that another process runs

    def print_plan(self) -> None:
        """`sweep.plan=true`: print what the sweep would do."""
        retry = self.settings.retry_failed
        states, todo = _states(self.composer, self.jobs, retry_failed=retry)
        self.record.begin(states)
        for job, found in states.items():
            if found.state in (State.FINISHED, State.TO_EXTEND):
                self.estimate.learn(job, found.seconds)
        self.record.print_table()
        for job, found in states.items():
            if found.reason:
                print(f"{job}: {found.reason}")
        left = self.estimate.left(todo, [], num_at_once=num_at_once(self.launcher))
        time_left = "the time is known once a job has finished"
        if left is not None:
            time_left = f"about {duration(left)}"
        print(f"{self._counted()}; {len(todo)} to run: {time_left if todo else 'nothing to do'}")

    def run(self) -> None:
        """Run the remaining jobs, and print a summary.

        Raises:
            UserError: a job failed or was refused, or all have the same mistake.
            Interrupted: the sweep was told to stop.
        """
        retry = self.settings.retry_failed
        states, todo = _states(self.composer, self.jobs, retry_failed=retry)
        self.composer.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.composer.folder / "multirun.yaml", OmegaConf.to_yaml(self.composer.config))
        print_start(self.composer)
        self.record.begin(states)
        for job, found in states.items():
            if found.state is State.FINISHED:
                self.estimate.learn(job, found.seconds)
            elif found.state is State.REFUSED:
                self._print_end(job, found)
        self.elsewhere = [job for job in self.jobs if states[job].state is State.RUNNING]
        self.record.save()
        print(f"{self._counted()}; {len(todo)} to run in {self.composer.folder}", flush=True)
        if todo or self.elsewhere:
            runs = open_runner(
                self.launcher,
                self.composer,
                retry_failed=retry,
                titles=lambda job: f"{self._called(job)} ({job})",
                afterwards=self._afterwards,
            )
            with closing(runs) as runner:
                for job in todo:
                    self._submit(job, runner)
                try:
                    self._run(runner)
                except Interrupted as stop:
                    self._stop(runner, stop.signal_number)
                    raise
        self.record.save()
        self._sum_up()

    def _submit(self, job: Job, runner: Runs) -> None:
        self.open.add(job)
        runner.submit(job)

    def _run(self, runner: Runs) -> None:
        is_free = runner.num_at_once > 1  # their output goes to files
        with closing(Standing(lambda: self._left(runner), is_free=is_free)) as standing:
            while runner.num_open or self.elsewhere:
                outcome = runner.next(LOOK_SECONDS if self.elsewhere else standing.seconds)
                if outcome is None:
                    if not runner.num_open:
                        time.sleep(LOOK_SECONDS)
                    self._look_elsewhere(runner)
                elif outcome.found.state is State.RUNNING:  # another process has started it
                    self.open.discard(outcome.job)
                    self.elsewhere.append(outcome.job)
                    self.record.note(outcome.job, outcome.found)
                else:
                    self._take(outcome.job, outcome.found, runner)
                    standing.postpone()
                standing.show()

    def _take(self, job: Job, found: Found, runner: Runs) -> None:
        """Note how a job ended."""
        self.record.note(job, found)
        self.open.discard(job)
        if found.state is State.FINISHED:
            self.estimate.learn(job, found.seconds)
        self._print_end(job, found, self._left(runner))
        if found.state not in DONE and self.settings.fail_fast:
            runner.withdraw()
            self.open = {job for job, _ in runner.running}
            self.elsewhere.clear()

    def _look_elsewhere(self, runner: Runs) -> None:
        """Take the results of jobs that other processes finished; run those that they left."""
        for job in list(self.elsewhere):
            if job not in self.elsewhere:  # fail_fast has given it up
                return
            found = self.composer.look(job)
            if found.state is State.RUNNING:
                continue
            self.elsewhere.remove(job)
            if found.is_to_run(retry_failed=False):
                self._submit(job, runner)
            else:
                self._take(job, found, runner)

    def _stop(self, runner: Runs, signal_number: int) -> None:
        """After Ctrl-C or SIGTERM: let the running jobs save, and print how to continue."""
        for outcome in stopped(runner, signal_number):
            self.record.begin({outcome.job: outcome.found})
        self.record.save()
        print_stop(self._counted(), self.composer)

    # Output -----------------------------------------------------------------------------------

    def _print_end(self, job: Job, found: Found, left: str = "") -> None:
        self.record.print_end(f"{self._called(job)} {found.state}", job, found, left)

    def _counted(self) -> str:
        """Such as "12 jobs: 10 finished, 2 new"."""
        parts = ", ".join(f"{number} {state}" for state, number in self.record.counts.items())
        return f"{plural(len(self.jobs), 'job')}: {parts}"

    def _called(self, job: Job) -> str:
        """Such as "job 3 of 9"."""
        return f"job {job.number + 1} of {len(self.jobs)}"

    def _afterwards(self, job: Job) -> str:
        """What will be left after a job that runs alone."""
        return self._left_of([], {job}, 1)

    def _left(self, runner: Runs) -> str:
        """The number of jobs left, and the time that they will take."""
        running = runner.running
        begun = {job for job, _ in running} | {outcome.job for outcome in runner.ended}
        return self._left_of(running, begun, runner.num_at_once)

    def _left_of(self, running: Sequence[tuple[Job, float]], begun: set[Job], at_once: int) -> str:
        not_begun = self.open - begun
        waiting = [job for job in self.jobs if job in not_begun]
        seconds = self.estimate.left(waiting, running, num_at_once=at_once)
        return left_text(len(running) + len(waiting), "job", seconds)

    def _sum_up(self) -> None:
        """Print the table, and the best job or setting.

        Raises:
            UserError: a job failed or was refused.
        """
        self.record.print_table()
        if best := self.record.told_best():
            print(best)
        counts = self.record.counts
        undone = {state: number for state, number in counts.items() if state not in DONE}
        if undone:
            raise UserError(
                f"{sum(undone.values())} of {len(self.jobs)} jobs did not finish "
                f"{what_then(undone, self.composer)}"
            )
