"""Run jobs in separate processes, several at once if asked, and return each as it ends.

    with closing(Runner(composer, num_at_once=2)) as runner:
        runner.submit(job)                       # returns at once; any number of times
        while (outcome := runner.next()) is not None:   # the next job that ends, whichever it is
            print(outcome.job, outcome.found.state, outcome.found.metric)

A finished job returns its recorded result. An interrupted job resumes from its checkpoint. A job
that raises, exits or is killed returns an outcome like any other. This process imports nothing
heavy and does not train: it composes the next jobs while workers (worker.py) train. A worker runs
one job after another, so that short jobs share the imports and the data. A worker that dies is
replaced.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from glimpse import socket_folder
from glimpse.config.explain import explain
from glimpse.crash import shortage
from glimpse.errors import UserError, first_line
from glimpse.process_context import process_context, start_fork_server
from glimpse.runs.folder import summary_of
from glimpse.signals import signals_held
from glimpse.sweeps.composing import Composer
from glimpse.sweeps.jobs import Job
from glimpse.sweeps.resources import Slot
from glimpse.sweeps.state import Found, State
from glimpse.sweeps.worker import GRACE_SECONDS, Reply, Request, serve

PRELOADED = ["glimpse.run", "glimpse.sweeps.worker"]  # imported once for all workers
# With several workers, these too.
OF_MOST_JOBS = ["sklearn.model_selection", "matplotlib.font_manager", "matplotlib.ticker"]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: The job.
        folder: Its run folder.
        found: Its state there: finished, interrupted, failed, refused, or running in another
            process.
    """

    job: Job
    folder: Path
    found: Found


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    slot: int
    job: Job | None = None
    began: float = field(default_factory=time.monotonic)

    def take(self, job: Job) -> None:
        """Note the job that the worker starts now."""
        self.job, self.began = job, time.monotonic()

    def rest(self) -> None:
        """Note that the worker waits for a job."""
        self.job = None


class Runner:
    """Runs the jobs of one sweep.

    Args:
        composer: Composes the jobs' configurations.
        num_at_once: The number of jobs that run at the same time. If there are several, the output
            of a job goes to log.txt in its folder.
        retry_failed: Whether to try again a job that failed in an earlier sweep.
        titles: Returns the line to print before a job.
        afterwards: Returns what is left of the sweep after a job, for its progress bar; not used if
            several jobs run at once.
    """

    on_stop = "stopping: the running jobs save their state and end"

    def __init__(
        self,
        composer: Composer,
        *,
        num_at_once: int = 1,
        retry_failed: bool = False,
        titles: Callable[[Job], str] = str,
        afterwards: Callable[[Job], str] | None = None,
    ) -> None:
        self.composer = composer
        self.num_at_once = num_at_once
        self.retry_failed = retry_failed
        self._titles = titles
        self._afterwards = afterwards
        self._queue: deque[Job] = deque()
        self._attempts: dict[Job, str | None] = {}  # that failed, of the jobs to try again
        self._prepared: deque[tuple[Job, Request]] = deque()
        self._ended: deque[Outcome] = deque()
        self._workers: dict[int, _Worker] = {}  # by slot

    @property
    def num_open(self) -> int:
        """Jobs that were submitted and not returned yet."""
        return len(self._queue) + len(self._prepared) + len(self._ended) + len(self.running)

    @property
    def running(self) -> list[tuple[Job, float]]:
        """The jobs that are running, each with the seconds since it started."""
        now = time.monotonic()
        return [(w.job, now - w.began) for w in self._workers.values() if w.job is not None]

    @property
    def ended(self) -> list[Outcome]:
        """The jobs that have ended, and that `next` has not returned yet."""
        return list(self._ended)

    def submit(self, job: Job) -> None:
        """Add a job. It runs once all jobs submitted before it have started and a slot is free."""
        self._queue.append(job)
        if self.retry_failed:
            self._attempts[job] = summary_of(self.composer.folder_of(job)).get("attempt")

    def next(self, timeout: float | None = None) -> Outcome | None:
        """Wait for the next job to end.

        Args:
            timeout: Maximum time to wait in seconds; None: no limit.

        Returns:
            How it ended; None if the time is over or no job is open.

        Raises:
            Interrupted: the sweep was told to stop; `stop` then stops the jobs.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._ended:  # before another job starts: the caller may stop after a failure
                return self._ended.popleft()
            self._hand_out()
            if self._queue and not self._prepared:  # compose while the workers train
                self._prepare(self._queue.popleft())
                continue
            if not self.num_open:
                return None
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._wait(left) and left == 0.0:
                return None

    def withdraw(self) -> None:
        """Withdraw the jobs that have not started."""
        self._queue.clear()
        self._prepared.clear()

    def stop(self, signal_number: int) -> list[Outcome]:
        """Let the running jobs save and end, and withdraw the others.

        A job that does not end in time is killed. No job can be submitted afterwards.

        Returns:
            The jobs that ended since the last call of `next`.
        """
        self.withdraw()
        for worker in self._workers.values():
            if worker.job is None:
                worker.connection.close()
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(worker.process.pid, signal_number)  # type: ignore[arg-type]
                    os.killpg(worker.process.pid, signal.SIGCONT)  # type: ignore[arg-type] # may be stopped
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in list(self._workers.values()):
            _join(worker.process, max(0.0, deadline - time.monotonic()))
            if worker.job is not None:
                self._end(worker, self._reply_of(worker))
            self._bury(worker)
        ended = list(self._ended)
        self._ended.clear()
        return ended

    def close(self) -> None:
        """Stop the jobs that still run, as after SIGTERM."""
        self.stop(signal.SIGTERM)

    # One step of the loop ---------------------------------------------------------------------

    def _prepare(self, job: Job) -> None:
        """Compose a job. A job with a mistake ends here."""
        folder = self.composer.folder_of(job)
        try:
            config, settings = self.composer.checked(job), self.composer.settings(job)
        except Exception as error:
            found = Found(State.REFUSED, explain(error, job.overrides))
            self._ended.append(Outcome(job, folder, found))
            return
        request = Request(
            config,
            settings,
            folder,
            self.retry_failed,
            has_log=self.num_at_once > 1,
            title=self._titles(job),
            attempt=self._attempts.get(job),
        )
        self._prepared.append((job, request))

    def _hand_out(self) -> None:
        """Give prepared jobs to workers that wait for one."""
        for slot in range(self.num_at_once):
            if not self._prepared:
                return
            worker = self._workers.get(slot)
            if worker is not None and worker.job is not None:
                continue
            job, request = self._prepared.popleft()
            if self._afterwards is not None and self.num_at_once == 1:
                request = replace(request, afterwards=self._afterwards(job))
            worker = worker or self._start(slot)
            worker.take(job)
            with contextlib.suppress(BrokenPipeError):  # if it is dead, `_wait` will detect that
                worker.connection.send(request)

    def _wait(self, timeout: float | None) -> bool:
        """Wait until a worker replies or dies. Returns whether one did."""
        workers = list(self._workers.values())
        ready = wait(
            [source for w in workers for source in (w.connection, w.process.sentinel)], timeout
        )
        for worker in workers:
            if worker.connection in ready or worker.process.sentinel in ready:
                reply = self._reply_of(worker)
                if reply is not None or not worker.process.is_alive():
                    self._end(worker, reply)
        return bool(ready)

    def _reply_of(self, worker: _Worker) -> Reply | None:
        try:
            reply = worker.connection.recv() if worker.connection.poll() else None
        except (EOFError, OSError):
            _join(worker.process)  # it has closed its end: it is dead or about to be
            return None
        assert reply is None or isinstance(reply, Reply)
        return reply

    def _end(self, worker: _Worker, reply: Reply | None) -> None:
        """Note how the job of a worker ended; without a reply, the worker is dead."""
        if worker.job is not None:
            folder = self.composer.folder_of(worker.job)
            found = reply.found if reply else _lost(worker.process, summary_of(folder))
            self._ended.append(Outcome(worker.job, folder, found))
            worker.rest()
        if reply is None or reply.is_last:
            self._bury(worker)

    # Processes --------------------------------------------------------------------------------

    def _start(self, slot: int) -> _Worker:
        """Start a worker. Try once more if the process that starts workers has been killed.

        Raises:
            UserError: that process ended both times.
        """
        for is_last in (False, True):
            try:
                return self._started(slot)
            except (EOFError, OSError) as error:
                if shortage(error) is not None:
                    raise
                if is_last:
                    raise UserError(
                        "the process that starts the workers of a sweep ended, perhaps because memory ran out "
                        f"or the limit of ulimit -u was reached ({first_line(error)}): run the same command again"
                    ) from error
                time.sleep(1)  # until the system has noted its end
        raise AssertionError

    def _started(self, slot: int) -> _Worker:
        socket_folder.share()
        ours, theirs = multiprocessing.Pipe()
        context = process_context(_start_method())
        process = context.Process(target=serve, args=(theirs, Slot(slot, self.num_at_once)))  # type: ignore[attr-defined]
        if context.get_start_method() == "forkserver":
            start_fork_server(PRELOADED + (OF_MOST_JOBS if self.num_at_once > 1 else []))
            process.start()
        else:
            with signals_held():
                process.start()
        theirs.close()
        worker = _Worker(process, ours, slot)
        self._workers[slot] = worker
        return worker

    def _bury(self, worker: _Worker) -> None:
        """Let a worker end, and kill every process that its jobs left behind."""
        worker.connection.close()
        _join(worker.process)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        self._workers.pop(worker.slot, None)


def _join(process: BaseProcess, seconds: float | None = None) -> None:
    """Wait until a worker has ended, by default for the time it may take to save; then kill it.

    A thread that one of its jobs left behind would keep it alive.
    """
    process.join(GRACE_SECONDS if seconds is None else seconds)
    if process.is_alive():
        process.kill()
        process.join()


def _start_method() -> str:
    """How workers start: as copies of a process that has imported torch, if that is safe."""
    return "forkserver" if sys.platform == "linux" else "spawn"


def _lost(process: BaseProcess, summary: dict[str, Any]) -> Found:
    """How the job of a dead worker ended. The summary says if one of its processes was killed."""
    told = summary.get("error") if summary.get("status") == State.INTERRUPTED else None
    return Found(State.INTERRUPTED, str(told or _death(process)), summary)


def _death(process: BaseProcess) -> str:
    """Why a worker that sent no reply has ended."""
    code = process.exitcode
    if code == 0:
        return "stopped"
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
        return f"its process, or one that belongs to it, was ended by {name}{hint}"
    return f"its process ended with exit code {code}"
