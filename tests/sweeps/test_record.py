"""What a sweep names as its best."""

import json
from pathlib import Path

import pytest
from sweeping import job_of

from folders import write_run
from glimpse.monitor import Monitor
from glimpse.sweeps.record import Record
from glimpse.sweeps.state import Found, State


@pytest.mark.parametrize(
    ("metrics", "told", "best"),
    [
        ({"seed=1": 0.5, "seed=2": 0.6}, "mean: val/acc 0.5500 ± 0.0707 over 2 seeds", None),
        ({"data.fold=0": 0.5, "data.fold=1": 0.6}, "mean: val/acc 0.5500 ± 0.0707 over 2 folds", None),
        ({"data.fold=0": 0.5, "data.fold=1": None}, "mean: val/acc 0.5000 over 1 of 2 folds", None),
        (
            {"data.fold=0 seed=1": 0.4, "data.fold=1 seed=1": 0.6},
            "mean: val/acc 0.5000 ± 0.1414 over 2 runs", None,
        ),
        (
            {"model=a data.fold=0": 0.9, "model=a data.fold=1": 0.1, "model=b data.fold=0": 0.6},
            "best: model=b  val/acc 0.6000 over 1 fold", None,
        ),
        (
            {"model=a seed=1": 0.5, "model=b seed=1": 0.6},
            "best: model=b seed=1  val/acc 0.6000  ", "model=b seed=1",
        ),
        (
            {"model=a seed=1": 0.5, "model=a seed=2": 0.7, "model=b seed=1": 0.65},
            "best: model=b  val/acc 0.6500 over 1 seed", "model=a seed=2",
        ),
        (
            {"model=a seed=1": 0.9, "model=a seed=2": None, "model=b seed=1": 0.6, "model=b seed=2": 0.6},
            "best: model=b  val/acc 0.6000 ± 0.0000 over 2 seeds", "model=a seed=1",
        ),
        (
            {"data=a model=m": 0.5, "data=a model=n": 0.4, "data=b model=m": 0.8, "data=b model=n": 0.9},
            "best on b: model=n  val/acc 0.9000\nbest on a: model=m  val/acc 0.5000",
            None,
        ),
        (
            {"data.classes=[0,1] model=m": 0.9, "data.classes=[1,2] model=m": 0.5},
            "best on data.classes=[0,1]: model=m  val/acc 0.9000\n"
            "best on data.classes=[1,2]: model=m  val/acc 0.5000",
            None,
        ),
        (
            {"loss=mse": 0.5, "loss=focal": 0.6},
            "best: loss=focal  val/acc 0.6000  ", "loss=focal",
        ),
        ({"seed=1": None}, "", None),
    ],
)  # fmt: skip
def test_a_seed_or_a_fold_is_no_choice(
    metrics: dict[str, float | None], told: str, best: str | None, tmp_path: Path
) -> None:
    record = Record(tmp_path, Monitor("val/acc", "max"))
    for number, (name, metric) in enumerate(metrics.items()):
        summary = {"metrics": {} if metric is None else {"val/acc": metric}}
        job = job_of(*name.split(), number=number, name=name)
        state = State.FAILED if metric is None else State.FINISHED
        record.begin({job: Found(state, summary=summary)})
    record.save()
    assert record.told_best() == (f"{told}{tmp_path / best}" if told.endswith("  ") else told)
    assert json.loads((tmp_path / "sweep.json").read_text())["best"] == best


def test_different_losses_have_no_best_by_their_loss(tmp_path: Path) -> None:
    record = Record(tmp_path, Monitor("val/loss", "min"))
    for number, (loss, value) in enumerate({"mse": 0.1, "focal": 0.6}.items()):
        job = job_of(f"loss={loss}", number=number, name=loss)
        record.begin({job: Found(State.FINISHED, summary={"metrics": {"val/loss": value}})})
    record.save()
    assert json.loads((tmp_path / "sweep.json").read_text())["best"] is None


def test_jobs_that_watched_different_metrics_are_compared_by_the_sweeps_own(tmp_path: Path) -> None:
    record = Record(tmp_path, Monitor("val/acc", "max"))
    for number, (watched, accuracy) in enumerate({"val/acc": 0.7, "val/loss": 0.6}.items()):
        summary = {"monitor": watched, "metrics": {"val/acc": accuracy, "val/loss": 2.0}}
        job = job_of(f"monitor={watched}", number=number, name=f"job{number}")
        record.begin({job: Found(State.FINISHED, summary=summary)})
    record.save()
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["best"] == "job0"
    assert [job["metric"] for job in content["jobs"]] == [0.7, 0.6]
    other = Record(tmp_path, Monitor("val/loss", "min"))
    other.begin({job_of("model=a", number=2, name="job2"): Found(State.FINISHED, summary=summary)})
    other.save()
    assert json.loads((tmp_path / "sweep.json").read_text())["best"] == "job2"


def test_a_refused_job_keeps_its_result_in_the_record(tmp_path: Path) -> None:
    job = job_of("seed=1", name="one")
    write_run(tmp_path / "one")
    for found in (
        Found(State.FINISHED, summary={"metrics": {"val/acc": 0.5}, "seconds": 2.0}),
        Found(State.REFUSED, "its folder was trained with seed=2, not 1"),
    ):
        record = Record(tmp_path, Monitor("val/acc", "max"))
        record.begin({job: found})
        record.save()
    [entry] = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    assert (entry["state"], entry["metric"], entry["seconds"]) == ("refused", 0.5, 2.0)


def test_the_best_of_another_command_is_not_one_whose_folder_was_removed(tmp_path: Path) -> None:
    for number, (name, accuracy) in enumerate({"kept": 0.7, "removed": 0.9, "new": 0.5}.items()):
        if name != "removed":
            write_run(tmp_path / name)
        record = Record(tmp_path, Monitor("val/acc", "max"))
        job = job_of(f"model={name}", number=number, name=name)
        record.begin({job: Found(State.FINISHED, summary={"metrics": {"val/acc": accuracy}})})
        record.save()
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["best"] == "kept"
    assert content["counts"] == {"finished": 2, "new": 1}


def test_a_setting_of_which_a_search_stopped_a_seed_is_not_the_best(tmp_path: Path) -> None:
    record = Record(tmp_path, Monitor("val/acc", "max"))
    for seed, state in ((0, State.PRUNED), (1, State.FINISHED)):
        job = job_of("model=a", f"seed={seed}", number=seed, name=str(seed))
        record.begin({job: Found(state, summary={"metrics": {"val/acc": 0.5}})})
    assert record.told_best() == ""
