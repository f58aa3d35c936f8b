"""`glimpse compare`: what differs between two runs, beside each other."""

import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from folders import write_run, write_start
from glimpse.cli.main import app


def compare(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def cells(result: Result, first: str) -> list[str]:
    """Of the line that begins with this."""
    line = next(line for line in result.output.splitlines() if line.startswith(f"{first} "))
    return re.split(r"  +", line.strip())


def test_settings_results_and_curves_stand_beside_each_other(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", accuracy=0.5)
    two = write_run(
        tmp_path / "two", seed=1, accuracy=0.75, model="mlp", config={"optimizer": {"lr": 0.1}}
    )
    out = tmp_path / "curves.png"
    result = compare(one, two, "--out", out)
    assert result.exit_code == 0
    assert cells(result, "model") == ["model", "linear", "mlp"]
    assert cells(result, "seed") == ["seed", "0", "1"]
    assert cells(result, "optimizer.lr") == ["optimizer.lr", "0.001", "0.1"]
    assert "optimizer.eps" not in result.output  # is the same
    assert cells(result, "test/acc") == ["test/acc", "0.5000", "0.7500", "+0.2500"]
    with Image.open(out) as picture:
        assert picture.width > 800


def test_a_run_that_is_still_running_is_compared_as_far_as_it_is(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_start(tmp_path / "two")
    (two / "metrics.csv").unlink()
    result = compare(one, two, "--out", tmp_path / "x.png")
    assert result.exit_code == 0
    assert cells(result, "status") == ["status", "finished", "running"]
    assert cells(result, "test/acc") == ["test/acc", "0.5000"]


def test_equal_settings_are_said_to_be(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two")
    assert "the settings do not differ" in compare(one, two, "--out", tmp_path / "x.png").output


@pytest.mark.parametrize(
    ("second", "out", "message"),
    [
        ("nowhere", "x.png", "there is no such folder"),
        (".", "x.png", "not a run folder"),
        ("one", "x.jpg", "ends in .png"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, second: str, out: str, message: str) -> None:
    one = write_run(tmp_path / "one")
    result = compare(one, tmp_path / second, "--out", tmp_path / out)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert message in result.output
    assert result.output.count("\n") == 1


def test_the_picture_goes_into_the_first_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = compare(one, two)
    assert result.exit_code == 0
    assert str(one / "figures" / "compare-two.png") in result.output.replace("\n", "")
    assert (one / "figures" / "compare-two.png").is_file()
    assert not list(elsewhere.iterdir())


def test_a_single_run_is_not_compared(tmp_path: Path) -> None:
    result = compare(write_run(tmp_path / "one"))
    assert result.output == "error: expected two runs, found 1: type glimpse compare RUN RUN\n"
