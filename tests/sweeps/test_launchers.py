"""Jobs that other launchers of Hydra run: submitit's and Ray's, each where it is installed."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from sweeping import QUICK, composer_of, job_of, states

from commands import train
from conftest import Execute
from glimpse.distributed.place import Place
from glimpse.errors import Interrupted, UserError
from glimpse.job import _require_one_task, _saved_before_preemption
from glimpse.runs.same_bits import compare_bits
from glimpse.signals import raise_interrupted
from glimpse.sweeps import grid
from glimpse.sweeps.composing import Composer
from glimpse.sweeps.jobs import Grid, Job
from glimpse.sweeps.launching import Launched
from glimpse.sweeps.runner import Outcome
from glimpse.sweeps.state import Found, State
from test_resume import SMALL, assert_same, stop_at

FINISHED = Found(State.FINISHED, summary={"status": "finished", "seconds": 1.0})


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_a_sweep_by_another_launcher(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    line = ("-m", *QUICK, "seed=1,2", f"hydra/launcher={launcher}")
    done = train(tmp_path, *line)
    folder = tmp_path / "outputs" / "sweeps" / "s"
    assert done.returncode == 0, done.stderr
    assert states(folder) == {"seed-1": "finished", "seed-2": "finished"}
    ours = train(tmp_path, "-m", *QUICK, "seed=1,2", "name=ours")
    assert ours.returncode == 0
    for name in states(folder):
        assert compare_bits(folder / name, folder.parent / "ours" / name).differences == []
    again = train(tmp_path, *line)
    assert "2 jobs: 2 finished; 0 to run" in again.stdout


def test_a_preempted_job_saves_before_it_is_requeued(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit's handler puts the job back into the queue and exits."""
    folder, unbroken = tmp_path / "run", execute(*SMALL, folder=tmp_path / "unbroken")
    saved: list[bool] = []

    def requeue(_number: int, _frame: FrameType | None) -> None:
        saved.append((folder / "checkpoints" / "last.ckpt").exists())
        raise SystemExit(-1)

    former = signal.signal(signal.SIGUSR2, requeue)
    try:
        with monkeypatch.context() as patch:
            stop_at(patch, "on_train_batch_end", 0, 2, signal.SIGUSR2)
            with pytest.raises(SystemExit), _saved_before_preemption():
                execute(*SMALL, folder=folder)
        assert signal.getsignal(signal.SIGUSR2) is requeue
    finally:
        signal.signal(signal.SIGUSR2, former)
    assert saved == [True]
    execute(*SMALL, f"resume={folder}", folder=folder)
    assert_same(unbroken, folder)


class _LikeRay(Launcher):
    """Waits as Ray does: of what a signal's handler raises, only KeyboardInterrupt is not lost."""

    def setup(self, **_: Any) -> None: ...

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        with contextlib.suppress(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return [JobReturn() for _ in job_overrides]


def test_ctrl_c_ends_a_launcher_that_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    former = signal.signal(signal.SIGINT, raise_interrupted)
    try:
        runs = Launched(_LikeRay(), composer_of(*QUICK))
        runs.submit(job_of(*QUICK))
        with pytest.raises(Interrupted, match="SIGINT"):
            runs.next()
        assert signal.getsignal(signal.SIGINT) is raise_interrupted
        [outcome] = runs.stop(signal.SIGINT)
        assert outcome.found.state is State.NEW
    finally:
        signal.signal(signal.SIGINT, former)


class _AllAtOnce(Launcher):
    """All of its jobs are over when it returns."""

    def setup(self, **_: Any) -> None: ...

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        return [JobReturn(status=JobStatus.COMPLETED) for _ in job_overrides]


def test_nothing_is_left_once_a_launcher_has_returned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    before_and_after = iter([Found(State.NEW)] * 2 + [FINISHED] * 2)
    monkeypatch.setattr(Composer, "look", lambda *_: next(before_and_after))
    jobs = [job_of(*QUICK, f"seed={seed}", name=f"seed-{seed}") for seed in (1, 2)]
    grid._Sweep(composer_of(*QUICK), Grid(tuple(jobs), ()), _AllAtOnce()).run()
    printed = capsys.readouterr().out
    assert printed.count(" finished in 0:01") == 2
    assert " left" not in printed


class _Instant:
    """Runs each job in no time."""

    num_at_once, on_stop = 1, ""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.running: list[tuple[Job, float]] = []
        self.ended: list[Outcome] = []

    @property
    def num_open(self) -> int:
        return len(self.jobs)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def next(self, timeout: float | None = None) -> Outcome:
        return Outcome(self.jobs.pop(0), Path(), FINISHED)

    def close(self) -> None: ...


def test_jobs_that_are_tried_again_are_left_until_they_have_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(Composer, "look", lambda *_: Found(State.FAILED, "no reason"))
    monkeypatch.setattr(grid, "open_runner", lambda *_, **__: _Instant())
    jobs = [job_of(*QUICK, f"seed={seed}", name=f"seed-{seed}") for seed in (1, 2, 3)]
    composer = composer_of(*QUICK, "sweep.retry_failed=true")
    grid._Sweep(composer, Grid(tuple(jobs), ()), _AllAtOnce()).run()
    printed = capsys.readouterr().out
    assert [number for number in range(4) if f"; {number} job" in printed] == [1, 2]


def test_other_signals_are_not_mistaken_for_preemption() -> None:
    with pytest.raises(Interrupted, match="SIGTERM"), _saved_before_preemption():
        raise Interrupted(signal.SIGTERM)
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_several_tasks_for_one_job_are_refused() -> None:
    _require_one_task(Place())
    with pytest.raises(UserError, match=r"type hydra\.launcher\.tasks_per_node=1"):
        _require_one_task(Place(0, 2, 0, 2, "srun"))
