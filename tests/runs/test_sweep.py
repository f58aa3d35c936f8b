"""What a report says of a sweep as a whole: counts, the best, what mattered, and its pictures."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from folders import write_run
from glimpse.cli.main import app
from glimpse.plots.save import new_figure
from glimpse.plots.sweep import _label
from glimpse.runs.folder import read_run
from glimpse.runs.importance import importance
from glimpse.runs.sweep import Axis, Sweep, best_by_dataset, read_sweep


def write_sweep(folder: Path, jobs: list[dict[str, Any]], **more: Any) -> Sweep:
    """A sweep.json, the runs of its jobs, and one more, so that there is something to report."""
    write_run(folder / "one")
    for number, job in enumerate(jobs):
        job.setdefault("folder", str(number))
        job.setdefault("seconds", 2.0)
        if job["state"] in ("finished", "pruned") and not (folder / job["folder"]).exists():
            metrics = {"val/acc": job["metric"]}
            write_run(folder / job["folder"], status=job["state"], metrics=metrics)
    (folder / "sweep.json").write_text(json.dumps({"metric": "val/acc", "jobs": jobs} | more))
    sweep = read_sweep(folder)
    assert sweep is not None
    return sweep


def a_search(num: int) -> list[dict[str, Any]]:
    """Only the learning rate matters; a few trials end otherwise."""
    draw = random.Random(0)
    jobs: list[dict[str, Any]] = []
    for _ in range(num):
        power, momentum = draw.uniform(-4, 0), draw.random()
        model = draw.choice(["linear", "mlp"])
        typed = [f"optimizer.lr={10**power:.4g}", f"optimizer.momentum={momentum:.4g}"]
        jobs.append({"overrides": [*typed, f"model={model}"], "state": "finished"})
        jobs[-1]["metric"] = 0.9 - 0.1 * (power + 2) ** 2
    jobs[3] |= {"state": "pruned", "metric": 0.2}
    jobs[5] |= {"state": "failed", "metric": None}
    return jobs


def test_what_mattered_is_told_and_drawn(tmp_path: Path) -> None:
    write_sweep(tmp_path, a_search(40), num_planned=50)
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "40 jobs: 38 finished, 1 pruned, 1 failed. 50 trials planned in all." in result.output
    assert "Importance for being among the best: optimizer.lr" in result.output
    page = (tmp_path / "report.html").read_text()
    assert "What mattered" in page
    names = [path.name for path in sorted((tmp_path / "figures").iterdir())]
    assert names == [f"sweep_{what}.png" for what in ("axes", "best_so_far", "importance", "pairs")]
    for name in names:
        with Image.open(tmp_path / "figures" / name) as picture:
            assert min(picture.size) > 100
        assert f"alt='{name.removesuffix('.png').replace('_', ' ')}'" in page


def test_the_pictures_of_a_sweep_that_is_read_only_are_beside_the_page(tmp_path: Path) -> None:
    folder, page = tmp_path / "sweep", tmp_path / "page" / "report.html"
    write_sweep(folder, a_search(40))
    (folder / "figures").touch()  # so that root, too, cannot write into it
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 1
    assert "type --html <another folder>/report.html" in result.output
    result = CliRunner().invoke(app, ["report", str(folder), "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert (page.parent / "figures" / "sweep_axes.png").exists()


def test_importance_finds_what_matters(tmp_path: Path) -> None:
    shares = importance(write_sweep(tmp_path, a_search(40)))
    assert shares is not None
    assert next(iter(shares)) == "optimizer.lr"
    assert shares["optimizer.lr"] > 0.6
    assert sum(shares.values()) == pytest.approx(1)


def test_few_whole_numbers_seem_no_more_important_than_they_are(tmp_path: Path) -> None:
    draw = random.Random(0)
    jobs: list[dict[str, Any]] = []
    for _ in range(30):  # as a search tries them: mostly near the best of both
        power, [workers] = draw.gauss(-2, 0.8), draw.choices([1, 2, 3, 4], [12, 1, 1, 2])
        typed = [f"optimizer.lr={10**power:.4g}", f"data.num_workers={workers}"]
        score = 0.9 - 0.1 * (power + 2) ** 2
        jobs.append({"overrides": typed, "state": "finished", "metric": score})
    shares = importance(write_sweep(tmp_path, jobs))
    assert shares is not None
    assert shares["data.num_workers"] < 0.1


def test_few_settings_have_no_importance(tmp_path: Path) -> None:
    write_sweep(tmp_path, a_search(9))
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert "Importance is shown once 10 settings have finished." in result.output


@pytest.mark.parametrize(("mode", "best"), [("max", "0.2"), ("min", "0.1")])
def test_seeds_of_a_setting_are_one_score(tmp_path: Path, mode: str, best: str) -> None:
    jobs = [
        {"overrides": [f"lr={lr}", f"seed={seed}"], "state": "finished", "metric": lr + seed / 100}
        for lr in (0.1, 0.2)
        for seed in (1, 2, 3)
    ]
    jobs.append({"overrides": ["lr=0.3", "seed=1"], "state": "new", "metric": None})
    sweep = write_sweep(tmp_path, jobs, mode=mode)
    found = best_by_dataset(sweep.settings, mode)[""]
    assert found.values == {"lr": best}
    assert found.score == pytest.approx(float(best) + 0.02)
    assert found.spread == pytest.approx(0.01)
    counts, told = sweep.told()
    assert counts == "The sweep has 7 jobs: 6 finished, 1 new. 1 still planned."
    assert told == f"Best val/acc: {float(best) + 0.02:.4f} ± 0.0100 over 3 seeds with lr={best}."


def test_what_a_folder_says_counts_and_not_an_old_record(tmp_path: Path) -> None:
    """A sweep that was killed has not recorded its last jobs."""
    jobs = [{"overrides": [f"seed={seed}"], "state": "new", "metric": None} for seed in (1, 2, 3)]
    for number in (0, 1):
        write_run(tmp_path / str(number), accuracy=0.4 + 0.2 * number, seed=number + 1)
    write_sweep(tmp_path, jobs)
    told = CliRunner().invoke(app, ["report", str(tmp_path)]).output
    assert "3 jobs: 2 finished, 1 new. 1 still planned." in told
    assert "Mean val/acc: 0.5000 ± 0.1414 over 2 of 3 seeds." in told


def test_the_mean_of_one_of_several_settings_is_called_the_best(tmp_path: Path) -> None:
    jobs: list[dict[str, Any]] = [
        {"overrides": [f"seed={seed}"], "state": "finished", "metric": 0.8} for seed in (1, 2)
    ]
    jobs.append({"overrides": ["lr=9"], "state": "finished", "metric": 0.1})
    assert write_sweep(tmp_path, jobs).told()[1] == "Best val/acc: 0.8000 ± 0.0000 over 2 seeds."


def test_a_removed_folder_is_not_the_best(tmp_path: Path) -> None:
    jobs: list[dict[str, Any]] = [
        {"overrides": [f"lr={lr}"], "state": "finished", "metric": lr} for lr in (0.1, 0.2)
    ]
    write_sweep(tmp_path, jobs)
    shutil.rmtree(tmp_path / "1")
    told = CliRunner().invoke(app, ["report", str(tmp_path)]).output
    assert "2 jobs: 1 finished, 1 new." in told
    assert "Best val/acc: 0.1000 with lr=0.1." in told


def test_a_seed_that_two_jobs_trained_is_one_score(tmp_path: Path) -> None:
    """A later command may type the seed that an earlier one left to its default."""
    jobs: list[dict[str, Any]] = [
        {"overrides": ["lr=0.1"], "state": "finished", "metric": 0.5, "seed": 1},
        {"overrides": ["lr=0.1", "seed=1"], "state": "finished", "metric": 0.5},
        {"overrides": ["lr=0.1", "seed=2"], "state": "finished", "metric": 0.7},
    ]
    [setting] = write_sweep(tmp_path, jobs).settings
    assert str(setting) == "0.6000 ± 0.1414 over 2 seeds"


def test_commands_that_share_a_folder_are_told_apart(tmp_path: Path) -> None:
    """Jobs list only what their command varied; the rest of their settings is in the run folders."""
    jobs: list[dict[str, Any]] = []
    for number, (rate, data) in enumerate([(0.1, "digits"), (0.2, "digits"), (0.1, "mnist")]):
        for seed in (1, 2):
            config = {"optimizer": {"lr": rate}, "data": {"_target_": f"glimpse.{data}"}}
            folder = f"{number}{seed}"
            write_run(tmp_path / folder, accuracy=rate + seed / 100, seed=seed, config=config)
            jobs.append({"folder": folder, "overrides": [f"seed={seed}"], "state": "finished"})
    write_sweep(tmp_path, jobs)
    sweep = read_sweep(tmp_path, [read_run(tmp_path / job["folder"]) for job in jobs])
    assert sweep is not None
    settings = sweep.settings
    assert [setting.values for setting in settings] == [
        {"data": "digits", "optimizer.lr": "0.1"},
        {"data": "digits", "optimizer.lr": "0.2"},
        {"data": "mnist", "optimizer.lr": "0.1"},
    ]
    assert [round(setting.score, 3) for setting in settings] == [0.115, 0.215, 0.115]
    told = CliRunner().invoke(app, ["report", str(tmp_path)]).output
    assert "Best val/acc on digits: 0.2150 ± 0.0071 over 2 seeds with optimizer.lr=0.2." in told


def test_a_setting_without_all_seeds_is_not_the_best(tmp_path: Path) -> None:
    jobs = [
        {"overrides": [f"lr={lr}", f"seed={seed}"], "state": "finished", "metric": lr}
        for lr in (0.1, 0.2)
        for seed in (1, 2)
    ]
    jobs[-1] |= {"state": "failed", "metric": None}
    sweep = write_sweep(tmp_path, jobs)
    assert best_by_dataset(sweep.settings, "max")[""].values == {"lr": "0.1"}
    assert [setting.state for setting in sweep.settings] == ["finished", "finished"]


def test_each_dataset_has_its_own_best(tmp_path: Path) -> None:
    """Accuracies on different images cannot be compared."""
    jobs: list[dict[str, Any]] = [
        {"overrides": [f"data={data}", f"model={model}"], "state": "finished", "metric": value}
        for data, model, value in (
            ("digits", "linear", 0.8), ("digits", "mlp", 0.9),
            ("synthetic", "linear", 1.0), ("synthetic", "mlp", 0.95),
        )
    ]  # fmt: skip
    write_sweep(tmp_path, jobs)
    told = CliRunner().invoke(app, ["report", str(tmp_path)]).output
    assert "Best val/acc on digits: 0.9000 with model=mlp." in told
    assert "Best val/acc on synthetic: 1.0000 with model=linear." in told
    assert "scores on different datasets, or by different losses, cannot be compared" in told
    assert not (tmp_path / "figures" / "sweep_best_so_far.png").exists()


def test_folds_are_one_mean_and_no_axis(tmp_path: Path) -> None:
    jobs: list[dict[str, Any]] = [
        {"overrides": [f"data.fold={fold}"], "state": "finished", "metric": 0.5 + fold / 10}
        for fold in range(3)
    ]
    sweep = write_sweep(tmp_path, jobs)
    assert sweep.axes == []
    assert sweep.told()[1] == "Mean val/acc: 0.6000 ± 0.1000 over 3 folds."


@pytest.mark.parametrize(
    ("values", "is_number", "is_log"),
    [
        (["0.001", "0.01", "0.1"], True, True),
        (["1", "2", "8"], True, False),
        (["0", "100"], True, False),
        (["null", "1"], False, False),
        (["[8]", "[16,16]"], False, False),
    ],
)
def test_axes_are_scaled_by_their_values(
    tmp_path: Path, values: list[str], is_number: bool, is_log: bool
) -> None:
    jobs: list[dict[str, Any]] = [
        {"overrides": [f"key={value}"], "state": "finished", "metric": 0.5} for value in values
    ]
    [axis] = write_sweep(tmp_path, jobs).axes
    assert (axis.is_number, axis.is_log) == (is_number, is_log)


@pytest.mark.parametrize("num", [3, 12, 40])
def test_many_words_on_an_axis_do_not_overlap(num: int) -> None:
    places = {f"a_long_name_{i}": float(i) for i in range(num)}
    figure = new_figure(4, 3.2)
    axes = figure.subplots()
    axes.set_xlim(0, num)
    _label(axes, Axis("model", places, is_number=False, is_log=False), along="x")
    figure.draw_without_rendering()
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == list(places)[:: -(-num // 12)]
    for label, place in zip(labels, axes.get_xticks(), strict=True):
        at = axes.transData.transform((place, 0))[0]
        assert label.get_window_extent().x1 == pytest.approx(at, abs=8)  # pixels


@pytest.mark.parametrize("text", ["", "[]", "{", '{"jobs": 3}', '{"jobs": [3, {"state": null}]}'])
def test_a_damaged_record_does_not_end_a_report(tmp_path: Path, text: str) -> None:
    write_run(tmp_path / "one")
    (tmp_path / "sweep.json").write_text(text)
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output


def test_a_sweep_without_axes_or_results_is_counted(tmp_path: Path) -> None:
    write_sweep(tmp_path, [{"overrides": [], "state": "refused", "metric": None}])
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "The sweep has 1 job: 1 refused." in result.output
    assert not (tmp_path / "figures").exists()
