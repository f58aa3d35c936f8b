"""`glimpse report`: one table and one page over runs, from their summaries."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glimpse.cli import app


def write_run(folder: Path, seed: int, accuracy: float, **changes: object) -> None:
    (folder / ".hydra").mkdir(parents=True)
    overrides = f"- data=digits\n- seed={seed}\n- data.classes=[a,b]\n"
    (folder / ".hydra" / "overrides.yaml").write_text(overrides)
    summary = {
        "status": "finished", "data": "digits", "model": "linear", "seed": seed, "epochs": 2,
        "best_epoch": 2, "parameters": 650, "seconds": 3.0, "images_per_second": 1000.0,
        "majority_acc": 0.1, "metrics": {"val/acc": accuracy, "test/acc": accuracy},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary | changes))


def test_seeds_are_one_row_with_mean_and_deviation(tmp_path: Path) -> None:
    write_run(tmp_path / "one", 1, 0.5)
    write_run(tmp_path / "two", 2, 0.7)
    failed = {"status": "failed", "error": "<broken>", "metrics": {}, "majority_acc": None}
    write_run(tmp_path / "three", 3, 0.0, **failed)
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0
    assert "0.6000 ± 0.1414" in result.output
    assert "data.classes=[a,b]" in result.output
    page = (tmp_path / "report.html").read_text()
    assert "0.6000 ± 0.1414" in page
    assert "&lt;broken&gt;" in page


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_nothing_to_report_is_one_line(tmp_path: Path, folder: str) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path / folder)])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
