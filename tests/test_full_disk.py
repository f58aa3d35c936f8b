"""A disk that is really full: small file systems of their own, mounted where a run or a command writes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, slow

FULL = "No space left on device"

TRAIN = """
import sys
from pathlib import Path
import conftest
from glimpse.run import run
conftest.pytest_configure(type("Config", (), {"addinivalue_line": lambda *_: None}))
config, _ = conftest.composed("model=linear", "trainer.max_epochs=2", "logger=[tensorboard,csv]",
                              "callbacks.pictures.every_n_epochs=1")
run(config, Path(sys.argv[1]), {"data": "digits", "model": "linear"})
"""

COMMANDS = """
import json, sys
from typer.testing import CliRunner
from glimpse.cli.main import app
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, command)
    crash = repr(result.exception) if not isinstance(result.exception, SystemExit | None) else ""
    print(json.dumps([command[0], result.exit_code, result.stderr, crash]))
"""


def run_on(own_mounts: list[str], mounts: dict[Path, str], *program: str) -> str:
    """Run Python where small file systems are mounted; returns what it printed."""
    lines = [f"mount -t tmpfs -o size={size} none '{place}'" for place, size in mounts.items()]
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "tests")])
    result = subprocess.run(
        [
            *own_mounts,
            "sh",
            "-ec",
            "\n".join([*lines, 'exec "$@"']),
            "sh",
            sys.executable,
            *program,
        ],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return result.stdout


def test_full_disks_of_loggers_and_pictures_end_no_training(
    tmp_path: Path, own_mounts: list[str]
) -> None:
    run = tmp_path / "run"
    places = [run / name for name in ("tensorboard", "csv", "figures")]
    for place in places:
        place.mkdir(parents=True)
    printed = run_on(own_mounts, dict.fromkeys(places, "4k"), "-c", TRAIN, str(run))
    pictures = places[2] / "train_batch.png"
    for name, place in (("TensorBoardLogger", places[0]), (f"cannot write {pictures}", pictures)):
        said = [line for line in printed.splitlines() if line.startswith(name) and FULL in line]
        assert len(said) == 1
        assert str(place) in said[0]
        assert "the run continues without" in said[0]
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert (run / "checkpoints" / "last.ckpt").exists()


LAUNCH = """
import sys
from glimpse import launch
sys.argv = ["train.py", "model=linear", f"output_dir={sys.argv[1]}/outputs"]
print(launch.main())
"""


def test_a_run_folder_that_hydra_cannot_write_is_named(
    tmp_path: Path, own_mounts: list[str]
) -> None:
    (tmp_path / "small").mkdir()
    program = f"import os; os.dup2(1, 2)\n{LAUNCH}"
    printed = run_on(own_mounts, {tmp_path / "small": "4k"}, "-c", program, str(tmp_path / "small"))
    error, code = printed.splitlines()
    assert error.startswith(f"error: cannot write {tmp_path / 'small'}")
    assert "No space left on device: type output_dir=" in error
    assert code == "1"


FILL = """
import hashlib, pathlib, shutil, sys
folder = pathlib.Path(sys.argv[1])
shutil.copytree(sys.argv[2], folder / "run")
old = folder / "run" / "report.html"
old.write_text("old")
for name in ("evaluation/val", "export"):
    (folder / "run" / name).mkdir(parents=True)
(folder / "run" / "evaluation" / "val" / "scores.json").write_text("old")
try:
    with open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
except OSError:
    pass
def contents():
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
before = contents()
"""
CHECK = """
after = contents()
print(json.dumps([name for name in {*before, *after} if before.get(name) != after.get(name)]))
"""


@pytest.mark.parametrize("exported", [slow("torch_export"), "safetensors", slow("onnx")])
def test_commands_name_what_they_cannot_write_and_keep_the_old(
    tmp_path: Path, trained_run: Path, own_mounts: list[str], exported: str
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    slim = shutil.copytree(
        trained_run, tmp_path / "slim", ignore=shutil.ignore_patterns("*.png", "tens*")
    )
    run = small / "run"
    commands = [["export", str(run), "--to", exported]]
    written = [run / "export" / f"model.{ {'torch_export': 'pt2'}.get(exported, exported) }"]
    if exported == "torch_export":
        commands += [["report", str(run)], ["evaluate", str(run), "--split", "val"]]
        written += [run / "report.html", run / "evaluation" / "val" / "scores.json"]
    program = FILL + COMMANDS.replace("sys.argv[1]", "sys.argv[3]") + CHECK
    arguments = (str(small), str(slim), json.dumps(commands))
    printed = run_on(own_mounts, {small: "4m"}, "-c", program, *arguments)
    *results, changed = map(json.loads, printed.splitlines())
    assert changed == []
    for (name, code, err, crash), path in zip(results, written, strict=True):
        assert (code, crash) == (1, ""), (name, err)
        assert f"error: cannot write {path}: {FULL}" in err
