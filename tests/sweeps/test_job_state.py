"""What a run folder says about the job that would run in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from folders import write_environment, write_run, write_start
from glimpse.folder_lock import held
from glimpse.runs.settings import settings_of
from glimpse.sweeps.state import State, look


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", max_epochs=2)


def today(folder: Path, **changes: str) -> Mapping[str, str]:
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return {**settings_of(folder), **changed}


def summary(folder: Path, **changes: Any) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_finished_run_is_done_with_its_recorded_result(finished: Path) -> None:
    found = look(finished, today(finished))
    assert (found.state, found.metric, found.seconds) == (State.FINISHED, 0.5, 3.0)


def test_a_folder_that_is_a_link_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    link = tmp_path / "sweep" / "seed-1"
    link.symlink_to(finished)
    assert look(link, today(finished)).state is State.REFUSED


def test_places_and_the_name_do_not_count(finished: Path) -> None:
    elsewhere = today(finished, output_dir="/x", name="y", data_dir="z", sweep__plan="true")
    assert look(finished, elsewhere).state is State.FINISHED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.lr", "0.002"),
        ("seed", "1"),
        ("data._target_", "other"),
        ("trainer.max_epochs", "1"),  # fewer than it was trained
    ],
)
def test_anything_else_that_differs_refuses_the_job_by_name(
    finished: Path, key: str, value: str
) -> None:
    before = sorted(path.name for path in finished.rglob("*"))
    found = look(finished, {**settings_of(finished), key: value})
    assert found.state is State.REFUSED
    assert f"{key}=" in found.reason
    assert f"not {value}" in found.reason
    assert sorted(path.name for path in finished.rglob("*")) == before


def test_another_choice_at_a_resume_refuses_the_job(finished: Path) -> None:
    now = today(finished)
    write_environment(finished, "train.py", f"resume={finished}", "callbacks=[ema]")
    found = look(finished, now)
    assert found.state is State.REFUSED
    assert "trained with callbacks=" in found.reason


def test_a_key_that_only_one_of_them_has_is_named(finished: Path) -> None:
    now = settings_of(finished)
    assert "trained without model.new=1:" in look(finished, {**now, "model.new": "1"}).reason
    was = now.pop("optimizer.lr")
    lacks = f"trained with optimizer.lr={was}, which this command lacks:"
    assert lacks in look(finished, now).reason


@pytest.mark.parametrize("text", ["1e-3", "0.0010", "0.001"])
def test_the_notation_of_a_number_does_not_count(finished: Path, text: str) -> None:
    assert look(finished, today(finished, optimizer__lr=text)).state is State.FINISHED


def test_more_epochs_extend_it(finished: Path) -> None:
    settings = {**settings_of(finished), "trainer.max_epochs": "5"}
    found = look(finished, settings)
    assert found.state is State.TO_EXTEND
    assert found.reason == "from 2 epochs to 5"
    summary(finished, max_epochs=5, epochs=3)  # extended, and early stopping ended it
    assert look(finished, settings).state is State.FINISHED
    more = {**settings, "trainer.max_epochs": "9"}  # which would have ended it too
    assert look(finished, more).state is State.FINISHED


def test_a_run_that_was_killed_is_to_be_continued(tmp_path: Path) -> None:
    folder = write_start(tmp_path / "run")
    assert look(folder, settings_of(folder)).state is State.INTERRUPTED
    (folder / "environment.json").unlink()  # killed before it began to train
    assert look(folder, settings_of(folder)).state is State.NEW
    assert look(tmp_path / "none", settings_of(folder)).state is State.NEW


def test_failed_and_interrupted(finished: Path) -> None:
    summary(finished, status="failed", error="no luck")
    found = look(finished, today(finished))
    assert (found.state, found.reason) == (State.FAILED, "no luck")
    assert found.is_to_run(retry_failed=True)
    assert not found.is_to_run(retry_failed=False)
    summary(finished, status="interrupted")
    assert look(finished, today(finished)).is_to_run(retry_failed=False)


def test_a_record_that_cannot_be_read_is_not_trained_over(finished: Path) -> None:
    now = today(finished)
    (finished / ".hydra" / "config.yaml").write_text("a: [")
    found = look(finished, now)
    assert found.state is State.REFUSED
    assert "cannot be read" in found.reason


def test_a_locked_folder_runs_elsewhere_unless_the_lock_is_ours(tmp_path: Path) -> None:
    folder = write_start(tmp_path / "run")
    with held(folder):
        assert look(folder, settings_of(folder)).state is State.RUNNING
        assert look(folder, settings_of(folder), is_ours=True).state is State.INTERRUPTED
    assert look(folder, settings_of(folder)).state is State.INTERRUPTED
