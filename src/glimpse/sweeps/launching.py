"""Run the jobs of a sweep: on this machine (runner.py), or with another of Hydra's launchers.

The published launchers for SLURM and Ray take all jobs at once and return when all have ended.
`Launched` gives them the interface of Runner. Each of their jobs runs launch.task in its own
process.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from glimpse.config.explain import explain
from glimpse.config.quoting import quoted
from glimpse.errors import Interrupted, UserError
from glimpse.signals import SIGNALS, handling, stop_signals
from glimpse.sweeps.composing import Composer
from glimpse.sweeps.jobs import Job, name_in, part_of
from glimpse.sweeps.runner import Outcome, Runner
from glimpse.sweeps.state import Found, State

JOBLIB = "hydra_plugins.hydra_joblib_launcher."  # our launcher does the same, and allows DDP


def num_at_once(launcher: Launcher) -> int:
    """The number of jobs that run at the same time.

    Raises:
        UserError: the number is impossible, or the launcher is one that loses processes.
    """
    if type(launcher).__module__.startswith(JOBLIB):
        raise UserError(
            "hydra/launcher=joblib loses the processes of a job: type hydra.launcher.n_jobs=4 instead"
        )
    number = getattr(launcher, "n_jobs", 1)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UserError(f"hydra.launcher.n_jobs={number}: expected a whole number of at least 1")
    return number


def open_runner(
    launcher: Launcher,
    composer: Composer,
    *,
    retry_failed: bool,
    titles: Callable[[Job], str] = str,
    afterwards: Callable[[Job], str] | None = None,
) -> "Runs":
    """Return an object that runs the jobs of a sweep. The caller has to close it.

    Args:
        launcher: Hydra's launcher, ours or another.
        composer: Composes the jobs' configurations.
        retry_failed: Whether to try again a job that failed in an earlier sweep.
        titles: Returns the line to print before a job, such as "job 3 of 9 (seed=3)".
        afterwards: Returns what is left of the sweep after a job, for its progress bar.
    """
    at_once = num_at_once(launcher)
    if type(launcher).__module__ == "hydra_plugins.glimpse_sweeps":
        return Runner(
            composer,
            num_at_once=at_once,
            retry_failed=retry_failed,
            titles=titles,
            afterwards=afterwards,
        )
    return Launched(launcher, composer)


def stopped(runner: "Runs", signal_number: int) -> list[Outcome]:
    """After Ctrl-C or SIGTERM, let the running jobs save and end, and ignore further signals.

    Returns:
        The jobs that have ended as a result.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if runner.running:
        print(runner.on_stop, flush=True)
    return runner.stop(signal_number)


class Launched:
    """Jobs that another launcher runs, all of them together.

    Args:
        launcher: Hydra's launcher.
        composer: Composes the jobs' configurations.
    """

    on_stop = "stopping: jobs on other machines continue"

    def __init__(self, launcher: Launcher, composer: Composer) -> None:
        self.num_at_once = 1
        self._launcher = launcher
        self._composer = composer
        self._queue: list[Job] = []
        self._ended: deque[Outcome] = deque()
        self._began: float | None = None

    @property
    def num_open(self) -> int:
        """Jobs that were submitted and not returned yet."""
        return len(self._queue) + len(self._ended)

    @property
    def running(self) -> list[tuple[Job, float]]:
        """The jobs that the launcher runs, each with the seconds since it started."""
        if self._began is None:
            return []
        return [(job, time.monotonic() - self._began) for job in self._queue]

    @property
    def ended(self) -> list[Outcome]:
        """The jobs that have ended, and that `next` has not returned yet."""
        return list(self._ended)

    def submit(self, job: Job) -> None:
        """Add a job to the next batch."""
        self._queue.append(job)

    def next(self, timeout: float | None = None) -> Outcome | None:
        """Launch the submitted jobs, and wait for all of them, whatever the timeout."""
        if not self._ended and self._queue:
            self.num_at_once = len(self._queue)
            self._began = time.monotonic()
            batch = [[*job.overrides, *self._places(job)] for job in self._queue]
            error: BaseException | None = None
            returned: Sequence[Any] = []
            try:
                with _interruptible():
                    returned = self._launcher.launch(batch, initial_job_idx=self._queue[0].number)
            except Exception as raised:  # some launchers raise what a job raised
                error = raised
            for number, job in enumerate(self._queue):
                raised_by_job = error
                if number < len(returned) and returned[number].status is JobStatus.FAILED:
                    raised_by_job = returned[number]._return_value
                self._ended.append(self._outcome(job, raised_by_job))
            self._queue.clear()
            self._began = None
        return self._ended.popleft() if self._ended else None

    def withdraw(self) -> None:
        """Withdraw the jobs that were not launched."""
        self._queue.clear()

    def stop(self, signal_number: int) -> list[Outcome]:
        """Withdraw the jobs that were not launched; the launcher manages its own processes.

        Returns:
            The jobs that ended since the last call of `next`, and the launched jobs in their
            present state.
        """
        launched = [self._outcome(job, None) for job, _ in self.running]
        self.withdraw()
        ended = [*self._ended, *launched]
        self._ended.clear()
        return ended

    def close(self) -> None:
        """Withdraw the jobs that were not launched."""
        self.withdraw()

    def _places(self, job: Job) -> list[str]:
        """The sweep's and the job's folder, which another process would name differently."""
        folder = self._composer.folder.resolve()
        return [f"hydra.sweep.dir={quoted(str(folder))}", f"hydra.sweep.subdir={quoted(job.name)}"]

    def _outcome(self, job: Job, error: BaseException | None) -> Outcome:
        found = self._composer.look(job)
        if found.state is not State.FINISHED and error is not None and not found.reason:
            state = State.FAILED if found.state is State.NEW else found.state
            found = Found(state, explain(error, job.overrides), found.summary)
        return Outcome(job, self._composer.folder_of(job), found)


Runs = Runner | Launched  # both have the methods that runner.py describes


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn signals into KeyboardInterrupt while a launcher waits. Ray loses any other exception.

    Raises:
        Interrupted: a signal was received.
    """
    received = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    with handling(stop_signals(), note):
        try:
            yield
        except KeyboardInterrupt as stop:
            raise Interrupted(received[0] if received else signal.SIGINT) from stop


def run_batch(
    batch: Sequence[Sequence[str]],
    first_number: int,
    context: HydraContext,
    config: DictConfig,
    launcher: Launcher,
) -> list[JobReturn]:
    """Run a batch of jobs here for a sweeper that is not ours.

    Args:
        batch: The overrides of each job.
        first_number: The number of the first job.
        context: Hydra's loader.
        config: The sweep's configuration, as Hydra composed it.
        launcher: Our launcher.

    Returns:
        For each job, the best value of its monitor (val/acc by default), or the error that ended it.
    """
    composer = Composer(context.config_loader, config)
    typed = set(config.hydra.overrides.task)
    returned: dict[Job, JobReturn] = {}
    with closing(open_runner(launcher, composer, retry_failed=False)) as runner:
        for number, overrides in enumerate(batch, first_number):
            varying = tuple(line for line in overrides if line not in typed)
            name = name_in(composer.folder, [part_of(line) for line in varying]) or str(number)
            job = Job(number, tuple(overrides), varying, name)
            returned[job] = JobReturn(overrides=list(overrides))
            runner.submit(job)
        while (outcome := runner.next()) is not None:
            result, found = returned[outcome.job], outcome.found
            is_done = found.state is State.FINISHED
            result.status = JobStatus.COMPLETED if is_done else JobStatus.FAILED
            result.return_value = found.metric if is_done else UserError(found.reason)
    return list(returned.values())
