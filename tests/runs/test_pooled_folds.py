"""A cross-validation as one row of the report, and as one evaluation of its pooled predictions."""

import csv
import io
import json
import shutil
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from typer.testing import CliRunner, Result

from conftest import composed
from glimpse.assembly import build_data
from glimpse.cli.main import app
from glimpse.run import run
from glimpse.runs.trained import TrainedRun

NUM_FOLDS = 3
OPTIONS = (
    "data=digits", "model=linear", "trainer=cpu", "trainer.max_epochs=1", "optimizer.lr=0.02",
    "logger=none", "callbacks.pictures=null", "metrics=[f1]", "monitor=val/f1", "test=val",
    f"data.folds={NUM_FOLDS}",
)  # fmt: skip


def glimpse(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python train.py -m data.folds=3 data.fold=0,1,2` leaves."""
    root = tmp_path_factory.mktemp("sweep")
    for fold in range(NUM_FOLDS):
        folder = root / f"data.fold-{fold}"
        overrides = [*OPTIONS, f"data.fold={fold}"]
        config, chosen = composed(*overrides)
        (folder / ".hydra").mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("glimpse.callbacks.pictures.draw_curves", lambda _trainer: None)
            run(config, folder, {group: str(chosen[group]) for group in ("data", "model")})
        (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(config))
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    return root


def test_the_report_makes_one_row_of_the_folds(sweep: Path) -> None:
    result = glimpse("report", sweep, "--format", "csv")
    assert result.exit_code == 0, result.output
    [row] = csv.DictReader(io.StringIO(result.stdout))
    assert row["n"] == str(NUM_FOLDS)
    for name in ("val/acc", "val/f1", "test/f1"):
        values = [
            json.loads(path.read_text())["metrics"][name] for path in sweep.glob("*/summary.json")
        ]
        assert float(row[f"{name} mean"]) == pytest.approx(mean(values))
        assert float(row[f"{name} std"]) == pytest.approx(stdev(values))
    printed = glimpse("report", sweep, "--format", "markdown").stdout
    assert "val/f1" in printed
    assert "differ only in the seed or the fold" in printed
    assert "best checkpoint by val/f1" in printed


def test_folds_that_have_been_drawn_anew_are_not_pooled(sweep: Path) -> None:
    result = glimpse("evaluate", sweep, "--set", "data.split_seed=3")
    assert result.exit_code == 1
    assert "the data or the splits of" in result.output


def test_of_two_runs_of_a_fold_one_is_taken(sweep: Path, tmp_path: Path) -> None:
    for folder in sweep.glob("data.fold-*"):
        shutil.copytree(folder, tmp_path / folder.name)
    shutil.copytree(tmp_path / "data.fold-1", tmp_path / "again")
    result = glimpse("evaluate", tmp_path)
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "evaluation" / "out-of-fold" / "scores.json").read_text())
    assert len(scores["fold_acc"]) == NUM_FOLDS


def test_evaluate_pools_what_each_fold_did_not_train_on(sweep: Path) -> None:
    result = glimpse("evaluate", sweep)
    assert result.exit_code == 0, result.output
    folder = sweep / "evaluation" / "out-of-fold"
    scores = json.loads((folder / "scores.json").read_text())
    right, seen = 0, set()
    for fold in range(NUM_FOLDS):
        trained = TrainedRun(sweep / f"data.fold-{fold}")
        found = trained.predict("val")
        assert found.correct.mean() == pytest.approx(scores["fold_acc"][fold])
        right += int(found.correct.sum())
        seen |= set(trained.data.splits["val"].rows.tolist())
    config, _ = composed(*OPTIONS, "data.fold=0")
    data = build_data(config)
    not_tested = set(range(1797)) - set(data.splits["test"].rows.tolist())
    assert seen == not_tested
    assert scores["num_images"] == len(seen)
    assert scores["scores"]["acc"]["value"] == pytest.approx(right / len(seen))
    with (folder / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["image"] for line in lines} == {f"train[{row}]" for row in seen}
    assert np.mean([line["actual"] == line["predicted"] for line in lines]) == pytest.approx(
        right / len(seen)
    )
    low, high = scores["metric_intervals"]["f1"]
    assert low <= scores["metrics"]["f1"] <= high
    assert f"{scores['metrics']['f1']:.4f}  {low:.4f} to {high:.4f}" in result.stdout


def test_folds_that_are_not_all_there_are_one_line(sweep: Path, tmp_path: Path) -> None:
    root = tmp_path / "copied"
    shutil.copytree(sweep / "data.fold-0", root / "data.fold-0")
    result = glimpse("evaluate", root)
    assert result.exit_code == 1
    assert "fold 1, 2 of 3 is missing: type the sweep's command" in result.stderr
    # A single value would not be swept, and its job would have another folder.
    assert "with 'data.fold=choice(1,2)'" in result.stderr
    assert "only the validation images" in glimpse("evaluate", sweep, "--split", "test").stderr
