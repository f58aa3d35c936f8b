"""The record of a search: what is suggested, what is kept, and what is refused."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from glimpse.errors import UserError
from glimpse.search.space import Choice, Interval, Space
from glimpse.search.study import Study, distribution, suggest

SPACE: Space = {"lr": Interval(1e-4, 1, is_log=True), "model": Choice(("linear", "mlp"))}


def opened(folder: Path, name: str = "study.db", **changes: str) -> Study:
    return Study(folder / name, SPACE, mode="max", seed=0, same={"lr": "x"} | changes)


def worth(trial: FrozenTrial) -> float:
    """Best at a low rate of the mlp."""
    return -float(trial.params["lr"]) + 0.1 * (trial.params["model"] == "mlp")


def searched(study: Study, most: int) -> list[dict[str, object]]:
    while (trial := study.ask(most)) is not None:
        study.finish(trial.number, worth(trial))
    return [trial.params for trial in study.trials()]


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_a_search_that_was_closed_goes_on_as_if_it_had_not_been(tmp_path: Path, name: str) -> None:
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    whole = searched(opened(tmp_path / "whole", name), 16)
    searched(opened(tmp_path / "parts", name), 5)
    trial = opened(tmp_path / "parts", name).ask(16)  # a process that is killed during trial 6
    assert trial is not None
    study = opened(tmp_path / "parts", name)
    assert [t.number for t in study.trials() if not t.state.is_finished()] == [5]
    study.finish(5, worth(trial))
    assert searched(study, 16) == whole
    assert len({float(str(params["lr"])) for params in whole}) == 16


def test_two_processes_may_record_the_same_trial(tmp_path: Path) -> None:
    studies = [opened(tmp_path), opened(tmp_path)]
    numbers = []
    while (trial := studies[0].ask(8)) is not None:
        numbers.append(trial.number)

    def finish_all(study: Study) -> None:
        for number in numbers:
            study.finish(number, 0.5)

    with ThreadPoolExecutor(len(studies)) as threads:
        list(threads.map(finish_all, studies))  # raises what they raise
    assert [trial.value for trial in studies[0].trials()] == [0.5] * len(numbers)


def test_trials_that_diverge_are_avoided(tmp_path: Path) -> None:
    study = opened(tmp_path)
    while (trial := study.ask(40)) is not None:
        if trial.params["lr"] > 0.01:
            study.fail(trial.number)
        else:
            study.finish(trial.number, worth(trial))
    states = [trial.state for trial in study.trials()]
    assert states[:10].count(TrialState.FAIL) >= 3  # half of the space fails
    assert states[20:].count(TrialState.FAIL) <= 4


def test_running_trials_are_not_suggested_again() -> None:
    distributions = {key: distribution(axis) for key, axis in SPACE.items()}
    first = suggest([], distributions, "max", seed=0, number=0)
    assert suggest([], distributions, "max", seed=0, number=0) == first
    assert suggest([], distributions, "max", seed=0, number=1) != first
    assert suggest([], distributions, "max", seed=1, number=0) != first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": "y"}, "lr=x instead of lr=y"),
        ({"momentum": "z"}, "no momentum instead of momentum=z"),
    ],
)
def test_another_space_is_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    opened(tmp_path)
    with pytest.raises(UserError, match=message):
        opened(tmp_path, **changes)


def test_the_cause_of_an_error_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened(tmp_path)

    def full(**_: object) -> None:  # what Optuna makes of a full disk
        try:
            raise sqlite3.OperationalError("database or disk is full")
        except sqlite3.OperationalError as error:
            raise StorageInternalError("This typically happens due to invalid data") from error

    monkeypatch.setattr(study._study, "get_trials", full)
    with pytest.raises(UserError, match=r"study\.db .*: database or disk is full$"):
        study.trials()


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match=r"study\.db cannot be read or written: .*not a database"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_a_link_or_a_pipe_is_no_record(tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_text("mine, without an end of line")
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="expected a file of the search"):
        opened(folder, name)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match="expected a file of the search"):
        opened(folder, name)
    assert (tmp_path / "victim").read_text() == "mine, without an end of line"


def test_any_character_may_stand_in_the_name_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "what? {100%} #1"
    folder.mkdir()
    searched(opened(folder), 1)
    with sqlite3.connect(folder / "study.db") as connection:
        assert connection.execute("select count(*) from trials").fetchone() == (1,)
    connection.close()


def test_a_failed_trial_may_be_begun_again_beyond_the_total(tmp_path: Path) -> None:
    study = opened(tmp_path)
    trial = study.ask(1)
    assert trial is not None
    study.fail(trial.number)
    again = study.again(trial)
    assert again.params == trial.params
    assert study.ask(1) is None
    assert study.ask(2) is not None


def test_a_journal_whose_last_line_is_torn_goes_on(tmp_path: Path) -> None:
    searched(opened(tmp_path, "study.journal"), 3)
    path = tmp_path / "study.journal"
    path.write_bytes(path.read_bytes()[:-20])
    study = opened(tmp_path, "study.journal")
    searched(study, 4)
    trials = opened(tmp_path, "study.journal").trials()
    assert len([trial for trial in trials if trial.state == TrialState.COMPLETE]) >= 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("study.db", "x" * 5000),
        ("study.journal", "x\ny\n"),
        ("study.journal", "[]\n"),
        ("study.journal", "{}\n"),
        ("study.journal", '{"op_code": 4}\n'),
        ("study.journal", '{"op_code": "0", "worker_id": 1}\n'),
    ],
)
def test_a_damaged_record_says_what_to_do(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="move it elsewhere, and the same command makes it anew"):
        opened(tmp_path, name).trials()


def test_a_default_that_is_typed_makes_no_other_search(tmp_path: Path) -> None:
    opened(tmp_path)

    def again(seed: str) -> Study:
        same = {"lr": "x", "seed": seed}
        path = tmp_path / "study.db"
        return Study(path, SPACE, mode="max", seed=0, same=same, defaults={"seed": "0"})

    again("0")
    with pytest.raises(UserError, match="no seed instead of seed=1"):
        again("1")
