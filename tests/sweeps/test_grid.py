"""Sweeps that continue: what is done, extended, refused, failed and killed."""

import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from sweeping import QUICK, command, composer_of, entry, job_of, states, sweep

from conftest import processes_of, slow
from folders import read_summary, write_run
from glimpse.errors import UserError
from glimpse.sweeps import runner, worker
from glimpse.sweeps.composing import Composer, without_hydra
from glimpse.sweeps.continuing import what_then
from glimpse.sweeps.resources import Slot
from glimpse.sweeps.runner import Outcome, Runner
from glimpse.sweeps.state import State
from glimpse.sweeps.worker import Request
from preloaded import environment


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a sweep over two models and two seeds has finished; to copy, not to change."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        sweep(patch, folder, "model=linear,mlp", "seed=1,2")
    return folder


@pytest.fixture
def again(swept: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(swept, tmp_path / "again")


NAMES = [f"model-{model}_seed-{seed}" for model in ("linear", "mlp") for seed in (1, 2)]
SAME = ("model=linear,mlp", "seed=1,2")


def written(folder: Path) -> dict[str, int]:
    """When each summary below a sweep's folder was written."""
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("*/summary.json")}


def weights(folder: Path) -> Mapping[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    found: Mapping[str, torch.Tensor] = checkpoint["state_dict"]
    return found


def require_equal(one: Path, other: Path) -> None:
    """Results and weights are the same, bit for bit."""
    assert read_summary(one)["metrics"] == read_summary(other)["metrics"]
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_sweep_leaves_a_folder_for_each_job_and_sweep_json(swept: Path) -> None:
    folder = swept / "outputs" / "sweeps" / "s"
    assert states(folder) == dict.fromkeys(NAMES, "finished")
    record = json.loads((folder / "sweep.json").read_text())
    metrics = {name: read_summary(folder / name)["metrics"]["val/acc"] for name in NAMES}
    assert metrics[record["best"]] == max(metrics.values())
    assert entry(folder, NAMES[2])["overrides"] == ["model=mlp", "seed=1"]
    assert entry(folder, NAMES[2])["metric"] == metrics[NAMES[2]]
    assert record["command"][:2] == ["train.py", "-m"]
    assert [path.name for path in folder.glob("*/.lock")] == []


def test_the_same_command_only_reads_what_is_done(
    again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = again / "outputs" / "sweeps" / "s"
    before = written(folder)
    monkeypatch.setattr(Runner, "submit", lambda *_: pytest.fail("a job was run"))
    sweep(monkeypatch, again, *SAME)
    assert written(folder) == before
    printed = capsys.readouterr().out
    assert "4 jobs: 4 finished; 0 to run" in printed
    assert all(re.search(rf"{name} *$", printed, re.M) for name in NAMES)
    assert "the folders are in outputs/sweeps/s\n" in printed
    assert "best: model=" in printed


def test_new_values_are_added(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = again / "outputs" / "sweeps" / "s"
    before = written(folder)
    sweep(monkeypatch, again, "model=linear", "seed=2,3,1,1")  # one model is no list: another name
    assert states(folder) == dict.fromkeys([*NAMES, "seed-2", "seed-3", "seed-1"], "finished")
    assert {name: time for name, time in written(folder).items() if name in before} == before


@pytest.mark.slow
def test_more_epochs_extend_and_equal_a_longer_run(
    again: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = ("seed=1", "model=linear,mlp", "trainer.max_epochs=4", "scheduler=constant")
    shorter = (*longer, "trainer.max_epochs=1")
    extended = sweep(monkeypatch, again, *shorter, "name=e").parent / "e"
    assert read_summary(extended / "model-mlp")["epochs"] == 1
    for _ in range(2):  # the second time, there is nothing to do
        sweep(monkeypatch, again, *longer, "name=e")
        assert read_summary(extended / "model-mlp")["epochs"] == 4
    fresh = sweep(monkeypatch, tmp_path, *longer, "name=f").parent / "f"
    for name in ("model-linear", "model-mlp"):
        require_equal(extended / name, fresh / name)


def test_another_configuration_is_refused_and_nothing_is_touched(
    again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = again / "outputs" / "sweeps" / "s"
    before = written(folder)
    with pytest.raises(UserError, match=r"4 of 6 jobs did not finish \(4 refused\)"):
        sweep(monkeypatch, again, "model=linear,mlp", "seed=1,2,3", "optimizer.lr=0.5")
    assert {name: time for name, time in written(folder).items() if name in before} == before
    assert states(folder) == dict.fromkeys(NAMES, "refused") | {
        "model-linear_seed-3": "finished", "model-mlp_seed-3": "finished",
    }  # fmt: skip
    assert "optimizer.lr=0.001, not 0.5" in entry(folder, NAMES[0])["reason"]
    assert "optimizer.lr" in capsys.readouterr().err


def test_a_mistake_in_one_job_refuses_that_job_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="1 refused"):
        sweep(monkeypatch, tmp_path, "data.batch_size=0,16")
    folder = tmp_path / "outputs" / "sweeps" / "s"
    assert states(folder) == {"data.batch_size-0": "refused", "data.batch_size-16": "finished"}
    assert "at least 1" in entry(folder, "data.batch_size-0")["reason"]
    assert not (folder / "data.batch_size-0").exists()


def test_a_mistake_that_all_jobs_share_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"^data\.batch_size=0: expected at least 1$"):
        sweep(monkeypatch, tmp_path, "data.batch_size=0", "seed=1,2,3")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_failed_jobs_are_tried_again_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "model=linear,convnet_template,mlp"
    folder = tmp_path / "outputs" / "sweeps" / "s"
    with pytest.raises(UserError, match=r"1 of 3 .*\(1 failed\).*retry_failed=true"):
        sweep(monkeypatch, tmp_path, line)
    expected = {"model-linear": "finished", "model-convnet_template": "failed"}
    assert states(folder) == expected | {"model-mlp": "finished"}
    assert "job 2 of 3 failed (model=convnet_template): " in capsys.readouterr().err
    before = written(folder)
    with pytest.raises(UserError):
        sweep(monkeypatch, tmp_path, line)
    assert written(folder) == before
    with pytest.raises(UserError):
        sweep(monkeypatch, tmp_path, line, "sweep.retry_failed=true")
    changed = {name for name, time in written(folder).items() if before[name] != time}
    assert changed == {"model-convnet_template"}


def test_fail_fast_starts_no_other_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="2 of 2"):
        sweep(monkeypatch, tmp_path, "model=convnet_template,linear", "sweep.fail_fast=true")
    folder = tmp_path / "outputs" / "sweeps" / "s"
    assert states(folder) == {"model-convnet_template": "failed", "model-linear": "new"}


def test_a_plan_refuses_what_the_sweep_will_refuse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(monkeypatch, tmp_path, "optimizer.lr=0.1,-1", "seed=1,2,3", "sweep.plan=true")
    out = capsys.readouterr().out
    assert "optimizer.lr=-1 seed=3: optimizer.lr=-1: expected at least 0" in out
    assert "6 jobs: 3 new, 3 refused; 3 to run" in out
    with pytest.raises(UserError, match="foo is not a key"):
        sweep(monkeypatch, tmp_path, "+foo=1,2", "sweep.plan=true")


@pytest.mark.parametrize("models", ["linear,pretrained,mlp", "linear,mlp,pretrained"])
def test_a_mistake_of_the_first_and_the_last_job_is_not_that_of_all(
    models: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"model={models}", "callbacks=[finetune]", "sweep.plan=true")
    sweep(monkeypatch, tmp_path, *words)
    assert "2 refused, 1 new; 1 to run" in capsys.readouterr().out


def test_what_is_left_of_a_sweep_may_all_be_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("model=linear", "data.batch_size=0,64", "seed=1,2")
    for _ in range(2):
        with pytest.raises(UserError, match="2 of 4 jobs did not finish"):
            sweep(monkeypatch, tmp_path, *words)
    assert "2 finished, 2 refused" in capsys.readouterr().out.replace(
        "2 refused, 2 finished", "2 finished, 2 refused"
    )


def test_one_seed_is_checked_for_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checked = []
    original = Composer.checked
    monkeypatch.setattr(
        Composer, "checked", lambda self, job: checked.append(job) or original(self, job)
    )
    sweep(monkeypatch, tmp_path, "seed=range(1,50)", "model=linear,mlp", "sweep.plan=true")
    assert len(checked) == 2


def test_mistakes_are_reported_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Runner, "submit", lambda *_: told.append(capsys.readouterr().err))
    with pytest.raises(UserError, match="2 of 2 jobs did not finish"):
        sweep(monkeypatch, tmp_path, "optimizer.lr=0.1,-1")
    [before] = told
    assert "job 2 of 2 refused (optimizer.lr=-1): optimizer.lr=-1: expected at least 0" in before


@pytest.mark.parametrize(("name", "read"), [("1e3", "1000.0"), ("1_000", "1000"), ("true", "True")])
def test_a_name_that_hydra_reads_as_something_else_is_refused(
    name: str, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=f"name={name}: Hydra reads it as {read}: type"):
        sweep(monkeypatch, tmp_path, "seed=1", f"name={name}")


def test_a_plan_runs_nothing(
    again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Runner, "submit", lambda *_: pytest.fail("a job was run"))
    sweep(monkeypatch, again, "model=linear,mlp", "seed=1,2,3", "sweep.plan=true")
    printed = capsys.readouterr().out
    assert "6 jobs: 4 finished, 2 new; 2 to run: about " in printed
    sweep(monkeypatch, again, "seed=1", "sweep.plan=true", "name=other")
    assert not (again / "outputs" / "sweeps" / "other").exists()


@pytest.mark.slow
def test_several_at_once_give_the_same_results(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sweep(monkeypatch, tmp_path, *SAME, "hydra.launcher.n_jobs=2")
    for name in NAMES:
        require_equal(folder / name, swept / "outputs" / "sweeps" / "s" / name)
        assert "epoch 2/2" in (folder / name / "log.txt").read_text()


@pytest.mark.parametrize(
    ("state", "more"),
    [(State.INTERRUPTED, ""), (State.FAILED, " sweep.retry_failed=true"), (State.REFUSED, None)],
)
def test_a_sweep_without_a_name_says_how_to_go_on_under_the_name_that_it_got(
    state: State, more: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2"])
    composer = composer_of("seed=1")
    told = what_then({state: 1}, composer)
    if more is None:
        assert "type" not in told
    else:
        assert told.endswith(f"train.py -m seed=1,2 name={composer.name}{more}")


@pytest.mark.parametrize("number", ["0", "-1", "true", "x"])
def test_an_impossible_number_of_jobs_is_refused(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception, match="n_jobs"):
        sweep(monkeypatch, tmp_path, "seed=1,2", f"hydra.launcher.n_jobs={number}")


# Workers ------------------------------------------------------------------------------------------


def ended(runner: Runner) -> Outcome:
    outcome = runner.next(120)
    assert outcome is not None
    return outcome


def worker_of(runner: Runner, rows: Path) -> int:
    """Wait until the job has written its first rows; return the process that trains it."""
    while not rows.exists():
        assert runner.next(0.05) is None
    [process] = multiprocessing.active_children()
    assert process.pid is not None
    return process.pid


def test_a_stopped_worker_ends_with_its_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = job_of(*QUICK, "trainer.max_epochs=100000")
    with closing(Runner(composer_of(*QUICK))) as runner:
        runner.submit(job)
        rows = tmp_path / "outputs" / "sweeps" / "s" / "job" / "metrics.csv"
        os.kill(worker_of(runner, rows), signal.SIGSTOP)
        [outcome] = runner.stop(signal.SIGTERM)
        assert (outcome.found.state, outcome.found.reason) == (
            State.INTERRUPTED,
            "stopped by SIGTERM",
        )
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, nobody wakes it")
def test_a_stopped_worker_ends_though_its_sweep_was_killed(tmp_path: Path) -> None:
    endless = command("-m", *QUICK, "trainer.max_epochs=100000", "seed=1,2")
    sweep = subprocess.Popen(endless, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    job = tmp_path / "outputs" / "sweeps" / "s" / "seed-1"
    while not (job / "metrics.csv").exists():
        assert sweep.poll() is None
        time.sleep(0.05)
    [its_worker] = [pid for pid in processes_of(tmp_path) if os.getsid(pid) == pid]
    os.kill(its_worker, signal.SIGSTOP)
    sweep.kill()
    sweep.wait()
    while processes_of(tmp_path):  # until the test's time is over
        time.sleep(0.05)
    assert read_summary(job)["status"] == "interrupted"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, no server starts the workers")
def test_the_server_of_the_workers_may_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    forkserver.ensure_running()
    server: int = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGSTOP)  # so that it dies while it is asked for a worker
    threading.Timer(1.0, os.kill, (server, signal.SIGKILL)).start()
    with closing(Runner(composer_of(*QUICK))) as runner:
        runner.submit(job_of(*QUICK))
        assert ended(runner).found.state is State.FINISHED


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, memory has no such limit")
def test_workers_that_cannot_load_torch_say_so(tmp_path: Path) -> None:
    result = subprocess.run(
        ["bash", "-c", f"ulimit -v 600000; {shlex.join(command('-m', *QUICK, 'seed=1,2'))}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "seed=2): too little memory to load torch: raise the limit that ulimit" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, slow(signal.SIGTERM)])
def test_a_killed_worker_ends_one_job_which_continues_later(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    long = job_of(*QUICK, "trainer.max_epochs=200", name="long")
    short = job_of(*QUICK, name="short")
    with closing(Runner(composer_of(*QUICK))) as runner:
        for job in (long, short):
            runner.submit(job)
        rows = tmp_path / "outputs" / "sweeps" / "s" / "long" / "metrics.csv"
        os.kill(worker_of(runner, rows), number)
        killed, other = ended(runner), ended(runner)
        assert (killed.job, killed.found.state) == (long, State.INTERRUPTED)
        assert number.name in killed.found.reason
        assert (other.job, other.found.state) == (short, State.FINISHED)
        runner.submit(long)
        assert ended(runner).found.state is State.FINISHED
        assert read_summary(rows.parent)["epochs"] == 200
    assert multiprocessing.active_children() == []


def test_a_worker_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that a failed job left behind would keep it, and with it the sweep, waiting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.1)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    theirs.close()
    waiting = Runner(composer_of(*QUICK))
    waiting._bury(runner._Worker(process, ours, slot=0))
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Jobs that the tests run in this very process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    return tmp_path


def request_for(folder: Path) -> Request:
    composer, job = composer_of(*QUICK), job_of(*QUICK, name=folder.name)
    config: DictConfig = composer.checked(job)
    settings = composer.settings(job)
    return Request(config, settings, folder, retry_failed=False, has_log=False, title="job 1")


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (SystemExit(3), State.FAILED, "sys.exit(3)"),
        (MemoryError(), State.FAILED, "MemoryError"),
        (UserError("one line"), State.FAILED, "one line"),
        (ZeroDivisionError("by\nzero"), State.FAILED, "ZeroDivisionError: by"),
    ],
)
def test_however_a_job_ends_it_is_an_outcome(
    error: BaseException, state: State, reason: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(worker, "run_in", fail)
    found, _ = worker._run(request_for(here / "outputs/sweeps/s/x"), Slot(0, 1))
    assert found.state is state
    assert reason in found.reason
    assert "\n" not in found.reason


@pytest.mark.parametrize("attempt", ["first", "second"])
def test_a_job_that_an_equal_command_tried_again_is_not_tried_once_more(
    attempt: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise UserError("tried again")

    job, composer = job_of(*QUICK, name="x"), composer_of(*QUICK)
    folder = write_run(here / "outputs/sweeps/s/x", status="failed", error="at first")
    record = OmegaConf.to_yaml(without_hydra(composer.compose(job)))
    (folder / ".hydra" / "config.yaml").write_text(record)
    with closing(Runner(composer, retry_failed=True)) as waiting:
        waiting.submit(job)
        summary = read_summary(folder) | {"attempt": attempt}
        (folder / "summary.json").write_text(json.dumps(summary))
        waiting._prepare(job)
        [(_, request)] = waiting._prepared
    monkeypatch.setattr(worker, "run_in", fail)
    found, _ = worker._run(request, Slot(0, 1))
    assert found.state is State.FAILED
    assert found.reason == ("tried again" if attempt == "first" else "at first")


def test_gpus_are_dealt_by_slot() -> None:
    def dealt(num_gpus: int, num_slots: int) -> list[str]:
        gpus = [str(number) for number in range(num_gpus)]
        return [",".join(Slot(number, num_slots).share_of(gpus)) for number in range(num_slots)]

    assert dealt(4, 2) == ["0,1", "2,3"]
    assert dealt(4, 4) == ["0", "1", "2", "3"]
    assert dealt(2, 4) == ["0", "1", "0", "1"]
    assert dealt(5, 2) == ["0,1", "2,3"]
