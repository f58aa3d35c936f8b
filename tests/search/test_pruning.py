"""Trials that lag behind stop early: what decides, and what a stopped run leaves."""

import json
from pathlib import Path

import pytest

from conftest import composed
from glimpse.run import run
from glimpse.search.pruning import Judge
from glimpse.search.space import Interval
from glimpse.search.study import Study

SMALL = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=64", "data.num_val=32", "trainer=cpu",
    "model=linear", "trainer.max_epochs=5", "callbacks.pictures=null", "logger=none",
)  # fmt: skip


def a_study_with_good_trials(folder: Path, *, num_trials: int, num_epochs: int) -> Study:
    """Trials that reach 0.9 at once, and one more that has just begun."""
    study = Study(folder / "study.db", {"lr": Interval(0, 1)}, mode="max", seed=0, same={})
    for number in range(num_trials):
        assert study.ask(num_trials) is not None
        judge = Judge(study.path, number, pruner="median", num_epochs=num_epochs)
        assert not any(judge(epoch, 0.9) for epoch in range(1, num_epochs + 1))
        study.finish(number, 0.9)
    assert study.ask(num_trials + 1) is not None
    return study


def stops(judge: Judge, values: list[float]) -> int | None:
    """The epoch after which a trial with these values is stopped."""
    return next((epoch for epoch, value in enumerate(values, 1) if judge(epoch, value)), None)


@pytest.mark.parametrize(
    ("num_trials", "values", "stopped"),
    [
        (5, [0.3] * 10, 4),
        (5, [0.3] * 4 + [0.95] + [0.3] * 5, 4),
        (5, [0.91] + [0.3] * 9, None),  # its best counts
        (4, [0.3] * 10, None),  # too few to compare with
    ],
)
def test_the_median_stops_what_lags_behind(
    tmp_path: Path, num_trials: int, values: list[float], stopped: int | None
) -> None:
    study = a_study_with_good_trials(tmp_path, num_trials=num_trials, num_epochs=10)
    judge = Judge(study.path, num_trials, pruner="median", num_epochs=10)
    assert stops(judge, values) == stopped


@pytest.mark.slow
def test_hyperband_compares_after_1_3_and_9_epochs(tmp_path: Path) -> None:
    study = Study(tmp_path / "study.db", {"lr": Interval(0, 1)}, mode="max", seed=0, same={})
    ends = []
    for number in range(30):
        assert study.ask(30) is not None
        judge = Judge(study.path, number, pruner="hyperband", num_epochs=9)
        ends.append(stops(judge, [number % 7 / 10] * 9))
        if ends[-1]:
            study.prune(number)
        else:
            study.finish(number, number % 7 / 10)
    assert set(ends) - {None} <= {1, 3, 9}
    assert 5 <= sum(end is not None for end in ends) <= 28


def test_a_resumed_trial_reports_each_epoch_once(tmp_path: Path) -> None:
    study = a_study_with_good_trials(tmp_path, num_trials=5, num_epochs=10)
    first = Judge(study.path, 5, pruner="median", num_epochs=10)
    assert not any(first(epoch, 0.8) for epoch in (1, 2, 3))
    again = Judge(study.path, 5, pruner="median", num_epochs=10)
    assert not again(3, 0.7)
    assert again(4, 0.7)
    assert study.trials()[5].intermediate_values == {1: 0.8, 2: 0.8, 3: 0.8, 4: 0.7}


def test_a_run_resumed_by_hand_does_not_disturb_the_record(tmp_path: Path) -> None:
    study = a_study_with_good_trials(tmp_path, num_trials=5, num_epochs=10)
    judge = Judge(study.path, 0, pruner="median", num_epochs=20)
    assert not judge(11, 0.0)
    assert 11 not in study.trials()[0].intermediate_values


def test_a_record_that_cannot_be_written_ends_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = a_study_with_good_trials(tmp_path, num_trials=5, num_epochs=10)
    judge = Judge(study.path, 5, pruner="median", num_epochs=10)
    study.path.unlink()
    study.path.write_bytes(b"not a database" * 100)
    assert stops(judge, [0.1] * 10) is None
    assert capsys.readouterr().out.count("this trial will not stop early") == 1


def test_a_run_that_is_stopped_early_says_so_and_can_go_on(tmp_path: Path) -> None:
    config, chosen = composed(*SMALL, f"data_dir={tmp_path / 'data'}")
    names = {group: str(chosen[group]) for group in ("data", "model")}
    folder = tmp_path / "run"
    seen: list[tuple[int, float]] = []

    def judge(epoch: int, value: float) -> bool:
        seen.append((epoch, value))
        return epoch == 2

    best = run(config, folder, names, judge=judge)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("pruned", 2)
    assert best == summary["metrics"]["val/acc"] == max(value for _, value in seen)
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert "test/acc" not in summary["metrics"]
    config.resume = str(folder)
    run(config, folder, names)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("finished", 5)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 6
