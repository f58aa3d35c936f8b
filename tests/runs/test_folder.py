"""Which folders are runs, and how a run is doing, whatever state its folder is in."""

import os
import platform
import time
from pathlib import Path

import pytest

from folders import write_environment, write_run, write_start
from glimpse.errors import LOWER_RATE, UserError
from glimpse.folder_lock import held
from glimpse.runs.folder import epochs_of, find_runs, read_run
from glimpse.runs.settings import overrides_of


def age(folder: Path, *, seconds: float) -> None:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_sweep_is_its_jobs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "lr"
    write_run(sweep / "lr-1")
    write_run(sweep / "lr-2")
    (sweep / "multirun.yaml").write_text("hydra: {}\n")
    (tmp_path / "sweeps" / "empty").mkdir()
    assert [run.folder.name for run in find_runs(tmp_path)] == ["lr-1", "lr-2"]


@pytest.mark.parametrize("seconds", [0, 3 * 3600, -3600], ids=["now", "old", "future"])
def test_a_run_of_this_machine_is_running_while_a_process_holds_its_folder(
    tmp_path: Path, seconds: float
) -> None:
    folder = write_start(tmp_path / "run")
    write_environment(folder, "train.py", host=platform.node())
    with held(folder):
        age(folder, seconds=seconds)
        assert read_run(folder).status == "running"
    (folder / ".lock").touch()  # as a killed process leaves it
    run = read_run(folder)
    assert run.status == "killed?"
    assert run.problem == "its end is not recorded, and no process is working on it"


def test_the_end_of_a_run_is_recorded_whatever_the_clock_said_at_its_start(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    os.utime(folder / "environment.json", (time.time() + 3600,) * 2)
    assert read_run(folder).status == "finished"


def test_on_another_machine_a_run_is_running_while_it_writes(tmp_path: Path) -> None:
    folder = write_start(tmp_path / "run", seed=3)
    run = read_run(folder)
    assert (run.status, run.data, run.model) == ("running", "digits", "mlp")
    assert run.number("epochs") == 2
    assert run.metrics == {"val/loss": 1.5, "val/acc": 0.4}  # not the running average of train
    age(folder, seconds=3 * 3600)
    run = read_run(folder)
    assert run.status == "killed?"
    assert run.problem == "its end is not recorded, and nothing was written for 3 hours"
    (folder / "report.html").write_text("a look at it is no sign of life")
    assert read_run(folder).status == "killed?"
    age(folder, seconds=-3600)  # the clock has been set back since
    assert (
        read_run(folder).problem == "its end is not recorded, and its files are dated in the future"
    )


def test_long_epochs_are_waited_for(tmp_path: Path) -> None:
    folder = write_start(tmp_path / "run")
    metrics = folder / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("100,1.5", "100,7200"))
    age(folder, seconds=3 * 3600)
    assert read_run(folder).status == "running"


def test_before_its_first_epoch_a_run_is_running(tmp_path: Path) -> None:
    folder = write_start(tmp_path / "run")
    (folder / "metrics.csv").unlink()
    run = read_run(folder)
    assert (run.status, run.metrics) == ("running", {})


def test_a_resumed_run_is_running_again_with_what_was_typed_then(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", status="interrupted", overrides=("model=mlp", "seed=1"))
    assert read_run(folder).status == "interrupted"
    recorded = ("train.py", "model=mlp", "seed=1")
    resume = (f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null")
    changed = ("trainer.max_epochs=9", "optimizer.lr=1e-2")
    write_environment(folder, *recorded, *resume, *changed, attempt="second")
    run = read_run(folder)
    assert run.status == "running"
    assert run.settings["trainer.max_epochs"] == "9"
    assert overrides_of(folder) == [*recorded[1:], "trainer.max_epochs=9", "optimizer.lr=1e-2"]


@pytest.mark.parametrize("text", ["", "{broken", "[]", '{"data": "digits"}', "\ufffd"])
def test_a_broken_summary_is_one_run_s_problem(tmp_path: Path, text: str) -> None:
    folder = write_run(tmp_path / "broken")
    (folder / "summary.json").write_text(text)
    write_run(tmp_path / "whole")
    broken, whole = find_runs(tmp_path)
    assert (broken.status, whole.status) == ("unreadable", "finished")
    assert broken.problem.startswith("summary.json cannot be read")
    assert "\n" not in broken.problem


@pytest.mark.parametrize("file", [".hydra/config.yaml", "environment.json", "metrics.csv"])
@pytest.mark.parametrize("text", ["", "{", "a: [", "\x00", "just words"])
def test_any_other_broken_file_leaves_the_result(tmp_path: Path, file: str, text: str) -> None:
    folder = write_run(tmp_path / "run", accuracy=0.75)
    (folder / file).write_text(text)
    assert read_run(folder).accuracy == 0.75


def test_an_error_keeps_its_remedy_at_its_end(tmp_path: Path) -> None:
    error = f"training diverged in {tmp_path / ('deep/' * 60)}: {LOWER_RATE}"
    folder = write_run(tmp_path / "run", status="failed", error=error)
    assert read_run(folder).problem.endswith(LOWER_RATE)


def test_settings_are_flat_and_as_typed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", config={"data": {"classes": ["a", "b"], "size": None}})
    settings = read_run(folder).settings
    assert settings["data.classes"] == '["a","b"]'
    assert settings["data.size"] == "null"
    assert settings["optimizer.lr"] == "0.001"
    assert "callbacks" not in settings  # nothing is chosen


def test_numbers_that_are_none_are_left_out_of_epochs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with (folder / "metrics.csv").open("a") as file:
        file.write("3,3,nan,0.5,inf,,,,,\n4,4,0.")
    assert epochs_of(folder)[2:] == [
        {"epoch": 3.0, "step": 3.0, "train/acc": 0.5},
        {"epoch": 4.0, "step": 4.0, "train/loss": 0.0},
    ]


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no runs in this folder"):
        find_runs(tmp_path)
