"""The command itself: a search continues, survives what its trials do, and trains nothing twice."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from conftest import TRAIN, slow
from folders import write_run
from glimpse.search.study import NAME, open_storage
from preloaded import environment

SMALL = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=64", "data.num_val=32", "trainer=cpu",
    "trainer.max_epochs=3", "callbacks.pictures=null", "logger=none", "test=false", "optimizer=sgd",
)  # fmt: skip
LR = "optimizer.lr=tag(log,interval(1e-3,1))"


def command(*arguments: str) -> list[str]:
    words = ("-m", "hydra/sweeper=search", "name=find", *SMALL, *arguments)
    return [sys.executable, TRAIN, *words]


def search(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def found(folder: Path) -> Path:
    return folder / "outputs" / "sweeps" / "find"


def trials_of(folder: Path) -> list[FrozenTrial]:
    storage = open_storage(found(folder) / "study.db")
    return optuna.load_study(study_name=NAME, storage=storage).get_trials()


def results(folder: Path) -> list[tuple[Any, ...]]:
    return [(trial.params, trial.state, trial.value) for trial in trials_of(folder)]


def wait_for(process: subprocess.Popen[bytes], path: Path, pattern: str, number: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(path.glob(pattern))) >= number:
            return
        time.sleep(0.02)
    raise AssertionError(f"{pattern} did not appear in {path}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of four trials."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = search(folder, LR, "model=mlp", "hydra.sweeper.n_trials=4")
    assert ended.returncode == 0, ended.stderr
    return folder


def test_a_search_leaves_its_trials_and_says_what_is_best(undisturbed: Path) -> None:
    trials = trials_of(undisturbed)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    record = json.loads((found(undisturbed) / "sweep.json").read_text())
    assert [job["metric"] for job in record["jobs"]] == [trial.value for trial in trials]
    for job in record["jobs"]:
        summary = json.loads((found(undisturbed) / job["folder"] / "summary.json").read_text())
        assert summary["metrics"]["val/acc"] == job["metric"]
        typed = (found(undisturbed) / job["folder"] / ".hydra" / "overrides.yaml").read_text()
        assert job["overrides"][0] in typed
        assert "hydra.sweeper" not in typed


@pytest.mark.parametrize(
    "number", [slow(signal.SIGKILL), slow(signal.SIGINT), slow(signal.SIGTERM)]
)
def test_a_search_that_was_stopped_goes_on(
    tmp_path: Path, undisturbed: Path, number: signal.Signals
) -> None:
    words = (LR, "model=mlp", "hydra.sweeper.n_trials=4")
    with subprocess.Popen(
        command(*words),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_for(process, found(tmp_path), "*/environment.json", 2)
        process.send_signal(number)
        assert process.wait(240) != 0
    ended = search(tmp_path, *words)
    assert ended.returncode == 0, ended.stderr
    assert results(tmp_path) == results(undisturbed)


@pytest.mark.slow
def test_trials_that_diverge_or_repeat_do_not_end_a_search(tmp_path: Path) -> None:
    ended = search(
        tmp_path,
        "optimizer.lr=0.1,1e30",
        "model=mlp",
        "hydra.sweeper.n_trials=6",
        "optimizer=adamw",
    )
    assert ended.returncode == 0, ended.stderr
    assert "training diverged" in ended.stderr
    assert ended.stdout.count("repeats an earlier one") == 4
    trials = trials_of(tmp_path)
    states = {trial.params["optimizer.lr"]: trial.state for trial in trials}
    assert states == {"0.1": TrialState.COMPLETE, "1e+30": TrialState.FAIL}
    assert len({trial.value for trial in trials}) == 2
    assert len(list(found(tmp_path).glob("*/summary.json"))) == 2


def test_the_run_of_another_configuration_is_no_result_of_a_trial(tmp_path: Path) -> None:
    write_run(found(tmp_path) / "optimizer.lr-0.1", accuracy=0.999)
    for _ in range(2):  # the second command finds the trial in the record
        ended = search(tmp_path, "optimizer.lr=choice(0.1)", "hydra.sweeper.n_trials=1")
        assert ended.returncode == 1
        assert re.search(r"optimizer\.lr=0\.1 +refused", ended.stdout)
        assert "0.999" not in ended.stdout
        assert "1 job did not finish (1 refused)" in ended.stderr


@pytest.mark.slow
def test_a_trial_that_is_killed_resumes_and_the_others_go_on(tmp_path: Path) -> None:
    words = (LR, "model=mlp", "hydra.sweeper.n_trials=3", "trainer.max_epochs=40")
    kill_a_worker(tmp_path, words, once="*/checkpoints/last.ckpt")
    killed, *others = trials_of(tmp_path)
    assert killed.state == TrialState.RUNNING
    assert [trial.state for trial in others] == [TrialState.COMPLETE] * 2
    plan = search(tmp_path, *words, "sweep.plan=true").stdout
    assert re.search(rf"optimizer\.lr={killed.params['optimizer.lr']:.4}\d* +interrupted", plan)
    assert "3 trials (1 interrupted, 2 finished)" in plan
    ended = search(tmp_path, *words)
    assert ended.returncode == 0, ended.stderr
    assert "3 trials (3 finished)" in ended.stdout
    assert len(list(found(tmp_path).glob("*/summary.json"))) == 3


def kill_a_worker(folder: Path, words: Sequence[str], *, once: str) -> None:
    """Run a search, and kill the process that trains once a file is there. The search ends with 1."""
    with subprocess.Popen(
        command(*words), cwd=folder, env=environment(), stdout=subprocess.DEVNULL
    ) as process:
        wait_for(process, found(folder), once, 1)
        os.kill(worker(folder), signal.SIGKILL)
        assert process.wait(240) == 1


def worker(folder: Path) -> int:
    """The process that trains: it leads a session of its own in the folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_here = (entry / "cwd").resolve() == folder.resolve()
            if is_here and os.getsid(int(entry.name)) == int(entry.name):
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError("no worker runs")


@pytest.mark.slow
def test_all_processes_of_a_run_stop_early_together(tmp_path: Path) -> None:
    words = (LR, "model=linear", "hydra.sweeper.n_trials=3", "hydra.sweeper.pruner=halving")
    ended = search(tmp_path, *words, "trainer=ddp_cpu")
    assert ended.returncode == 0, ended.stderr
    epochs = [
        json.loads(path.read_text())["epochs"] for path in found(tmp_path).glob("*/summary.json")
    ]
    assert sorted(epochs) == [1, 1, 3]


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["none", "halving"])
def test_a_record_that_was_moved_away_is_made_anew(tmp_path: Path, pruner: str) -> None:
    words = (LR, "model=linear", "hydra.sweeper.n_trials=4", f"hydra.sweeper.pruner={pruner}")
    assert search(tmp_path, *words, "trainer.max_epochs=9").returncode == 0
    before = results(tmp_path)
    folders = sorted(found(tmp_path).glob("optimizer*"))
    (found(tmp_path) / "study.db").unlink()
    again = search(tmp_path, *words, "trainer.max_epochs=9")
    assert again.returncode == 0, again.stderr
    assert "4 trials (" in again.stdout
    if pruner == "none":
        assert results(tmp_path) == before
        assert sorted(found(tmp_path).glob("optimizer*")) == folders


@pytest.mark.slow
def test_a_trial_that_dies_each_time_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Successive halving: the best of the others is trained to its end."""
    words = (LR, "model=linear", "hydra.sweeper.n_trials=4", "hydra.sweeper.pruner=halving")
    words = (*words, "trainer.max_epochs=40")
    kill_a_worker(tmp_path, words, once="*/environment.json")
    states = [trial.state for trial in trials_of(tmp_path)]
    assert states[0] == TrialState.RUNNING
    assert TrialState.COMPLETE in states


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lrr=interval(0,1)"], "did you mean optimizer.lr?"),
        slow(["optimizer.lr=interval(-1,1)"], "optimizer.lr=-1: expected at least 0"),
        slow(["model=linear,convent"], "did you mean convnet?"),
        (["loss=cross_entropy,mse", "monitor=val/loss"], "type monitor=val/acc"),
        slow(["monitor=val/acc,val/loss"], "the monitor compares the trials: type a single one"),
        slow(["data.val_fraction=0.1,0.3"], "type a single value of data.val_fraction"),
        slow(["data.batch_size=interval(8,16)"], "data.batch_size=10.67: expected a whole number"),
        slow([LR, "hydra.sweeper.pruner=foo"], "expected one of none, median"),
        slow([LR, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: expected at least 1"),
        slow([LR, "hydra.sweeper.n_trials=x"], "hydra.sweeper.n_trials=x"),
        slow(
            [LR, "hydra.sweeper.pruner=halving", "trainer.max_epochs=-1"], "trainer.max_epochs=27"
        ),
        slow(
            [LR, "hydra.sweeper.pruner=halving", "trainer.check_val_every_n_epoch=2"],
            "type trainer.check_val_every_n_epoch=1",
        ),
    ],
)
def test_a_mistake_in_a_search_is_one_line_before_torch_is_imported(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    words = ("-m", "hydra/sweeper=search", *arguments)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, TRAIN, *words],
        cwd=tmp_path,
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert message in ended.stderr
    assert not list(tmp_path.glob("outputs/sweeps/*/*"))
