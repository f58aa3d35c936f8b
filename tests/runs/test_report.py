"""`glimpse report`: the table over runs, its baselines and formats, and a single run."""

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from conftest import REPOSITORY
from folders import COMMIT, write_environment, write_run, write_start
from glimpse.cli.main import app
from glimpse.cli.table import print_table
from glimpse.records import finite
from glimpse.runs.folder import find_runs
from glimpse.runs.groups import group
from glimpse.runs.report import fitted, table

MLP = {"_target_": "glimpse.models.mlp.MLP", "widths": [64]}
SGD = {"_target_": "torch.optim.SGD", "lr": 0.001, "momentum": 0.9}


def report(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["report", str(folder), *options])


def rows(folder: Path) -> list[dict[str, str]]:
    result = report(folder, "--format", "csv")
    assert result.exit_code == 0
    return list(csv.DictReader(io.StringIO(result.stdout)))


def labels(folder: Path) -> set[str]:
    return {member.label for member in group(find_runs(folder))}


def test_seeds_are_one_row_with_mean_and_deviation(tmp_path: Path) -> None:
    accuracies = [0.5, 0.7, 0.9]
    for seed, accuracy in enumerate(accuracies):
        write_run(tmp_path / str(seed), seed=seed, accuracy=accuracy)
    shown = f"{mean(accuracies):.4f} ± {stdev(accuracies):.4f}"
    result = report(tmp_path)
    assert result.exit_code == 0
    assert shown in result.output
    assert shown in (tmp_path / "report.html").read_text()
    (row,) = rows(tmp_path)
    assert row["n"] == "3"
    assert float(row["val/acc mean"]) == pytest.approx(mean(accuracies), abs=1e-12)
    assert float(row["val/acc std"]) == pytest.approx(stdev(accuracies), abs=1e-12)


def test_a_seed_that_was_trained_twice_counts_once(tmp_path: Path) -> None:
    for name, accuracy in [("a", 0.5), ("b", 0.7)]:
        write_run(tmp_path / name, accuracy=accuracy)
    assert rows(tmp_path)[0]["val/acc std"] == ""  # one seed has no deviation
    write_run(tmp_path / "c", seed=1, accuracy=0.8)
    (row,) = rows(tmp_path)
    assert row["n"] == "2"
    assert float(row["val/acc mean"]) == pytest.approx(0.7, abs=1e-12)
    assert float(row["val/acc std"]) == pytest.approx(stdev([0.6, 0.8]), abs=1e-12)
    assert "1 run repeated the training of another with the same seed" in report(tmp_path).output


def test_the_same_settings_fall_together_however_they_were_typed(tmp_path: Path) -> None:
    faster = {"optimizer": {"lr": 0.1}, "trainer": {"max_epochs": 5}}
    write_run(tmp_path / "a", config=faster, overrides=("experiment=fast",))
    by_hand = ("optimizer.lr=0.1", "trainer.max_epochs=5", "output_dir=elsewhere")
    write_run(tmp_path / "b", seed=1, config=faster, overrides=by_hand)
    write_run(tmp_path / "c", config={"trainer": {"max_epochs": 5}})
    assert sorted(row["n"] for row in rows(tmp_path)) == ["1", "2"]
    assert labels(tmp_path) == {"optimizer.lr=0.1", "optimizer.lr=0.001"}


def test_what_differs_is_told_within_data_and_model(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", model="mlp", config={"model": MLP, "optimizer": {"lr": 0.1}})
    assert labels(tmp_path) == {""}


def test_another_optimizer_is_named_without_the_arguments_it_alone_has(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", config={"optimizer": SGD})
    write_run(tmp_path / "c", config={"optimizer": SGD | {"momentum": 0.5}})
    ema = {"ema": {"_target_": "glimpse.callbacks.ema.WeightAverage", "decay": 0.999}}
    write_run(tmp_path / "d", config={"callbacks": ema})
    assert labels(tmp_path) == {
        "optimizer=AdamW",
        "callbacks.ema=WeightAverage optimizer=AdamW",
        "optimizer=SGD optimizer.momentum=0.9",
        "optimizer=SGD optimizer.momentum=0.5",
    }


def test_a_list_is_named_beside_a_single_choice(tmp_path: Path) -> None:
    flip, mix = (
        {"_target_": f"glimpse.data.augment.{name}"} for name in ("flips.Flip", "mixing.CutMix")
    )
    write_run(tmp_path / "one", settings={"augment": flip})
    write_run(tmp_path / "both", settings={"augment": {"flip": flip, "cutmix": mix}})
    write_run(tmp_path / "none", settings={"augment": None})
    assert labels(tmp_path) == {"augment=Flip", "augment=[Flip,CutMix]", "augment=null"}
    assert {row["augment"] for row in rows(tmp_path)} == {"Flip", "[Flip,CutMix]", "null"}


def test_runs_whose_settings_nobody_knows_are_not_averaged(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = write_run(tmp_path / name)
        (folder / ".hydra" / "config.yaml").unlink()
    assert len(rows(tmp_path)) == 2
    assert labels(tmp_path) == {"(settings not recorded)"}


def test_a_result_stands_beside_the_simplest_model_on_the_same_images(tmp_path: Path) -> None:
    write_run(tmp_path / "linear", accuracy=0.5)
    write_run(tmp_path / "worse", accuracy=0.4, config={"optimizer": {"lr": 9}})
    mlp = {"model": "mlp", "parameters": 9000}
    write_run(tmp_path / "mlp", accuracy=0.8, config={"model": MLP}, **mlp)
    smaller = {"model": MLP, "data": {"batch_size": 8}}
    write_run(tmp_path / "batches", accuracy=0.7, config=smaller, **mlp)
    other_split = {"model": MLP, "data": {"split_seed": 1}}
    write_run(tmp_path / "split", accuracy=0.9, config=other_split, **mlp)
    found = {row["val/acc mean"]: row for row in rows(tmp_path)}
    assert {a: round(float(row["vs_simplest"]), 12) for a, row in found.items()} == {
        "0.5": 0.0, "0.4": -0.1, "0.8": 0.3, "0.7": 0.2, "0.9": 0.0,
    }  # fmt: skip
    assert found["0.8"]["simplest"] == "linear"
    assert float(found["0.8"]["majority_acc"]) == 0.1
    assert "linear on digits" in report(tmp_path).output


def test_running_failed_and_broken_runs_are_shown_as_such(tmp_path: Path) -> None:
    write_run(tmp_path / "finished")
    failed = {"status": "failed", "metrics": {}, "majority_acc": None, "parameters": None}
    write_run(tmp_path / "failed", error="the loss is nan [/red]", **failed)
    write_start(tmp_path / "started")
    (write_run(tmp_path / "broken") / "summary.json").write_text("{")
    result = report(tmp_path)
    assert result.exit_code == 0
    assert all(f"1 {status}" in result.output for status in ("failed", "running", "unreadable"))
    assert "failed failed: the loss is nan [/red]" in result.output
    assert "broken unreadable: summary.json cannot be read" in result.output
    assert {row["status"] for row in rows(tmp_path)} == {
        "finished", "failed", "running", "unreadable",
    }  # fmt: skip


def test_runs_that_never_began_do_not_decide_what_differs(tmp_path: Path) -> None:
    refused = {"status": "failed", "epochs": 0, "metrics": {}, "attempt": None}
    changed = {"data": {"classes": "[a]"}}
    write_run(tmp_path / "typo", config=changed, error="there is no class a", **refused)
    assert "there is no class a" in report(tmp_path).output  # alone, it has a row
    assert "failed before training" not in report(tmp_path).output
    for lr in (0.1, 0.2):
        write_run(tmp_path / str(lr), config={"optimizer": {"lr": lr}})
    assert labels(tmp_path) == {"optimizer.lr=0.1", "optimizer.lr=0.2", "optimizer.lr=0.001"}
    assert sorted(row["status"] for row in rows(tmp_path)) == ["failed", "finished", "finished"]
    told = "1 run failed before training began and has no row in this table; the page of all runs lists them."
    for options in ((), ("--format", "markdown")):
        found = report(tmp_path, *options).output
        assert told in " ".join(found.split())
        assert "lr=0.001" not in found
    page = (tmp_path / "report.html").read_text()
    assert told in page
    assert "lr=0.001" not in page
    assert "there is no class a" in page
    diverged = {"status": "failed", "epochs": 0, "metrics": {}}
    write_run(tmp_path / "diverged", config={"optimizer": {"lr": 9}}, **diverged)
    assert "optimizer.lr=9" in report(tmp_path).output


def test_markdown_is_a_table_with_as_many_cells_in_each_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config={"data": {"root": "a|b"}})
    write_run(tmp_path / "b", config={"data": {"root": "c"}})
    result = report(tmp_path, "--format", "markdown")
    header, dashes, *lines = result.stdout.split("\n\n")[0].splitlines()
    assert set(dashes) == {"|", "-", " "}
    assert "data.root=a\\|b" in result.stdout
    assert {line.replace("\\|", "").count("|") for line in (dashes, *lines)} == {header.count("|")}


def test_a_narrow_terminal_loses_columns_and_says_which(tmp_path: Path) -> None:
    write_run(tmp_path / "run", data="a_long_name_of_a_dataset")
    columns, cells, left_out = fitted(*table(group(find_runs(tmp_path))), width=70)
    assert "seconds" in left_out
    assert {"val/acc", "test/acc"} <= set(columns)
    assert len("  ".join(cells[0])) <= 70


def test_a_narrow_terminal_breaks_no_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        for rate in (0.01, 0.001):
            config = {"optimizer": {"lr": rate, "eps": rate}}
            folder = tmp_path / f"{seed}-{rate}"
            write_run(
                folder, seed=seed, accuracy=0.9 + seed / 100, config=config, data="fashion_mnist"
            )
        folder = tmp_path / f"mlp-{seed}"
        write_run(
            folder, seed=seed, config={"model": MLP}, model="small_convnet", data="fashion_mnist"
        )
    monkeypatch.setattr("glimpse.cli.table.width", lambda: 80)
    columns, cells, left_out = fitted(*table(group(find_runs(tmp_path))), width=80)
    print_table(columns, cells)
    printed = capsys.readouterr().out
    assert all(len(line.rstrip()) <= 80 for line in printed.splitlines())
    for words in cells:
        for word in " ".join(words).split():
            assert word in printed.split()
    assert {"data", "vs simplest"} <= set(left_out)
    assert columns == ["model", "what differs", "runs", "val/acc", "test/acc"]


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_nothing_to_report_is_one_line(tmp_path: Path, folder: str) -> None:
    result = report(tmp_path / folder)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_the_page_goes_where_it_is_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs" / "run")
    page = tmp_path / "page.html"
    assert f"page: {page}" in report(folder.parent, "--html", str(page)).output
    assert page.read_text().startswith("<!doctype html>")
    assert not (folder.parent / "report.html").exists()
    page = tmp_path / "new" / "page.html"
    assert f"page: {page}" in report(folder.parent, "--html", str(page)).output
    assert page.exists()


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_a_single_run_says_its_gap_and_how_to_repeat_it(tmp_path: Path, form: str) -> None:
    folder = write_run(
        tmp_path / "run", accuracy=0.5, overrides=("model=mlp", "data.classes=[a b,c]")
    )
    write_environment(folder, "train.py", "-m", "model=mlp,linear", dirty=True)
    result = report(folder, "--format", form)
    assert result.exit_code == 0
    assert "+0.1000 (train/acc 0.6000 - test/acc 0.5000" in result.output
    assert f"git checkout {COMMIT}" in result.output
    assert "uncommitted changes" in result.output
    assert 'python train.py model=mlp "data.classes=[a b,c]"' in result.output  # of the sweep's job
    assert (folder / "report.html").exists()


def test_a_run_without_a_measured_training_set_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", metrics={"val/acc": 0.5})
    assert "overfitting gap: unknown without train/acc" in report(folder).output


def test_a_run_of_the_learning_rate_finder_shows_what_it_suggests(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", metrics={"lr_find/valley": 0.0123})
    assert re.search(r"lr_find/valley +0.0123", report(folder).output)


def test_runs_of_the_learning_rate_finder_stand_apart_from_trainings(tmp_path: Path) -> None:
    task, metrics = {"task": "lr_find"}, {"lr_find/valley": 0.0123, "lr_find/steepest": 0.2}
    for name in ("a", "b"):
        write_run(tmp_path / "tests" / name, settings=task, metrics=metrics)
    assert "linear on digits suggests optimizer.lr=0.012 (a)" in report(tmp_path / "tests").output
    write_run(tmp_path / "training")
    assert [row["n"] for row in rows(tmp_path)] == ["1"]
    said = report(tmp_path).output
    assert "1 run (1 finished) in 1 group" in said
    assert "linear on digits suggests optimizer.lr=0.012 (tests/a)" in said
    assert "Learning-rate tests" in (tmp_path / "report.html").read_text()


def test_an_extended_run_states_its_last_number_of_epochs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", extended_from=[1])
    said = report(folder).output
    assert re.search(r"epochs +2 of 2", said)


def test_a_stopped_run_says_how_to_go_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", status="interrupted")
    (folder / "checkpoints").mkdir()
    assert f"python train.py resume={folder}" in report(folder).output


def test_added_metrics_and_the_recall_of_classes_stand_beside_accuracy(tmp_path: Path) -> None:
    for seed, value in enumerate((0.2, 0.4)):
        metrics = {"val/acc": 0.9, "test/acc": 0.9, "val/f1": value, "test/f1": value + 0.1}
        recall = {"cat": 1.0, "dog": value, "emu": 0.5, "fox": 0.6}
        folder = tmp_path / str(seed)
        write_run(folder, seed=seed, metrics=metrics, class_recall=recall, monitor="val/f1")
    result = report(tmp_path)
    assert re.search(r"val/f1 +test/f1 +recall by class", result.output)
    assert "0.3000 ± 0.1414" in result.output
    assert "dog 0.30, emu 0.50, fox 0.60 …" in result.output
    assert "best checkpoint by val/f1" in result.output
    one = report(tmp_path / "0").output
    assert "the best by val/f1 was 2" in one
    assert re.search(r"recall on test *\ndog +0\.2000", one)
    page = (tmp_path / "0" / "report.html").read_text()
    assert "Recall by class" in page


def test_each_class_of_a_run_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thousand classes, reading all of them for each would take seconds."""
    recalls = [{f"class {n}": 0.7011 + n / 100 + seed / 1000 for n in range(20)} for seed in (1, 2)]
    for seed, recall in enumerate(recalls):
        write_run(tmp_path / str(seed), seed=seed, class_recall=recall)
    read: list[Any] = []
    monkeypatch.setattr(
        "glimpse.runs.folder.finite", lambda value: read.append(value) or finite(value)
    )
    assert "class 0 0.70, class 1 0.71, class 2 0.72 …" in report(tmp_path).output
    assert all(read.count(value) == 1 for recall in recalls for value in recall.values())


def test_the_best_run_is_that_of_the_monitor(tmp_path: Path) -> None:
    for name, error in (("a", 0.4), ("b", 0.1)):
        metrics = {"val/acc": 0.5 + error, "val/error": error}
        changed = {"data": {"batch_size": 8 if name == "a" else 16}}
        write_run(tmp_path / name, metrics=metrics, monitor="val/error", config=changed)
    first, _ = group(find_runs(tmp_path))
    assert first.best.folder.name == "b"


def test_a_run_that_is_training_shows_its_best_by_its_monitor(tmp_path: Path) -> None:
    folder = write_start(tmp_path / "run", config={})
    config = folder / ".hydra" / "config.yaml"
    config.write_text(config.read_text() + "monitor: val/loss\nmode: max\n")
    [run] = find_runs(tmp_path)
    assert run.metrics["val/loss"] == 3  # of the first epoch, the highest


def test_torch_is_not_imported(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch", "lightning", "hydra", "matplotlib"):
        (blocked / f"{name}.py").write_text("raise SystemExit('imported')")
    path = os.pathsep.join([str(blocked), str(REPOSITORY / "src")])
    code = "from glimpse.cli.main import app; app()"
    result = subprocess.run(
        [sys.executable, "-c", code, "report", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "page: " in result.stdout
