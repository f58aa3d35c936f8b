"""What commands print reaches programs whole, and a place that cannot be written to is named first."""

import csv
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from glimpse.cli.main import app
from glimpse.cli.predict import Format, _print_predictions
from glimpse.runs.trained import TrainedRun

PROGRAM = "import sys; from glimpse.cli.entry import main; sys.exit(main())"


def typed(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's line in which `glimpse` is this one's."""
    function = f'glimpse() {{ {sys.executable} -c "{PROGRAM}" "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", function + line],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


ODD_NAMES = ("می\u200cخواهم", "a\u00a0b", "\U0001f469\u200d\U0001f692", "two\nlines")


def test_csv_has_the_names_of_files_and_classes_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"image": f"{name}.png", "top": [(name, 0.5)]} for name in ODD_NAMES]
    _print_predictions(rows, Format.csv)
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert [row["class"] for row in read] == list(ODD_NAMES)
    assert [row["image"] for row in read] == [f"{name}.png" for name in ODD_NAMES]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _print_predictions(rows, Format.csv)
    assert "two\\nlines" in capsys.readouterr().out


def test_a_file_name_that_is_not_utf8_is_predicted(trained_run: Path, tmp_path: Path) -> None:
    image = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    with open(image, "wb") as file:
        Image.new("L", (8, 8)).save(file, "png")
    result = typed(f"glimpse predict {trained_run} {tmp_path} --format csv")
    assert (result.returncode, result.stderr) == (0, "")
    assert "caf\\xe9.png" in result.stdout


def test_json_can_be_read_whatever_the_encoding(trained_run: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "été.png")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    line = f"glimpse predict {trained_run} {tmp_path} --format json"
    for variables in ({"PYTHONIOENCODING": "latin-1"}, plain):
        [row] = json.loads(typed(line, **variables).stdout)
        assert Path(row["image"]).name == "été.png"


@pytest.mark.parametrize(
    ("line", "code", "printed"),
    [
        ("glimpse data list > /dev/full", 1, "No space left on device: type > <a file on another"),
        ("glimpse --version > /dev/full", 1, "error: cannot write the output: No space left"),
        ("glimpse data list 2> /dev/full > /dev/null", 0, ""),
        ("set -o pipefail; glimpse data list | head -c 1 > /dev/null", 0, ""),
    ],
)
def test_output_that_is_lost_is_an_error(line: str, code: int, printed: str) -> None:
    result = typed(line)
    assert result.returncode == code
    assert printed in result.stderr
    assert result.stderr.count("\n") == code


@pytest.mark.parametrize(
    ("command", "typed_instead"),
    [
        ("evaluate {run}", "--out <another folder>"),
        ("confused {run}", "--out <another folder>"),
        ("losses {run}", "--out <another folder>"),
        ("look {run}", "--out <another folder>"),
        ("shift {run}", "--out <another folder>/shift.png"),
        ("compare {run} {run}", "--out <another folder>/compare-run.png"),
        ("export {run} --to onnx", "--out <another folder>/model.onnx"),
        ("report {run}", "--html <another folder>/report.html"),
    ],
)
def test_a_run_that_cannot_be_written_to_is_named_before_anything_is_predicted(
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    typed_instead: str,
) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run")

    def refuse(path: Path) -> tuple[Path, int]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def predict(*_: object) -> None:
        raise AssertionError("it has predicted")

    monkeypatch.setattr("glimpse.files._created", refuse)  # also root cannot write there
    monkeypatch.setattr(TrainedRun, "predict_split", predict)
    monkeypatch.setattr(TrainedRun, "probabilities", predict)
    result = CliRunner().invoke(app, command.format(run=run).split())
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: cannot write {run}")
    assert result.stderr.endswith(f"Read-only file system: type {typed_instead}\n")


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        ("export {run} --to onnx --out {run}/checkpoints/best.ckpt", ".onnx"),
        ("shift {run} --out {run}/metrics.csv", ".png"),
        ("report {run} --html {run}/summary.json", ".html"),
    ],
)
def test_no_file_of_another_kind_is_replaced(trained_run: Path, command: str, ending: str) -> None:
    result = CliRunner().invoke(app, command.format(run=trained_run).split())
    assert result.exit_code == 1
    assert re.search(
        rf": expected a file name that ends in {ending}: type --\w+ .*{ending}$", result.stderr
    )


def test_a_folder_in_place_of_a_file_is_named_before_the_export(
    trained_run: Path, tmp_path: Path
) -> None:
    command = ["export", str(trained_run), "--to", "onnx", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert f"it is a folder, expected a file: type --out {tmp_path}/model.onnx\n" in result.stderr
    assert result.stdout == ""
