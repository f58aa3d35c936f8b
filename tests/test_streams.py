"""Output that goes nowhere ends nothing, and text from outside does not command the terminal."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from commands import train
from conftest import TRAIN
from glimpse.console import console
from glimpse.streams import printable

CODE = """
import subprocess, sys
from glimpse.streams import keep_printing
keep_printing()
started = "import sys; assert None not in (sys.stdin, sys.stdout, sys.stderr)"
subprocess.run([sys.executable, "-c", started], check=True)
with open("record", "w") as record:
    for line in range(5000):
        print(f"é {line}")
        print(line, file=sys.stderr)
    record.write("whole")
"""


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ('python -c "$CODE" | head -1', "é 0"),
        ('python -c "$CODE" 2>&1 | head -1', "é 0"),
        ('python -c "$CODE" >&- 2>&-', ""),
        ('python -c "$CODE" <&- >&- 2>&-', ""),
        ('python -c "$CODE" >/dev/full 2>/dev/full', ""),
        ('PYTHONIOENCODING=ascii python -c "$CODE" | head -1', "\\xe9 0"),
    ],
)
def test_a_program_goes_on_where_its_output_goes_nowhere(
    command: str, printed: str, tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=tmp_path,
        env=os.environ | {"CODE": CODE, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-500:]
    assert result.stdout.strip() == printed
    assert (tmp_path / "record").read_text() == "whole"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "end"), [("", "| head -1"), ("", ">/dev/full"), ("PYTHONIOENCODING=ascii", "")]
)
def test_the_jobs_of_a_sweep_go_on_where_their_output_goes_nowhere(
    tmp_path: Path, variables: str, end: str
) -> None:
    words = "model=linear trainer=cpu trainer.max_epochs=1 logger=none seed=1,2 name=é"
    command = f"{variables} {sys.executable} {TRAIN} -m {words} {end}"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    summaries = sorted(tmp_path.glob("outputs/sweeps/é/*/summary.json"))
    assert [json.loads(path.read_text())["status"] for path in summaries] == ["finished"] * 2


@pytest.mark.parametrize("main", ["glimpse.launch", "glimpse.cli.main"])
def test_a_current_folder_that_was_deleted_is_named(tmp_path: Path, main: str) -> None:
    code = f"import os, sys; os.rmdir(os.getcwd()); from {main} import main; sys.exit(main())"
    result = subprocess.run(  # -P: Python 3.13.0 cannot import from a folder that has gone
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr == (
        "error: the current folder has been deleted: type cd <another folder>\n"
    )


def test_text_from_outside_is_escaped() -> None:
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert printable("a\nb\r", kept="\n") == "a\nb\\r"
    assert printable("caf\udce9 été") == "caf\\udce9 été"


def test_the_console_shows_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.print("x[/red]y :smile: \x1b[2J")
    assert "x[/red]y :smile: \\x1b[2J" in capsys.readouterr().out


QUICK = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=64", "data.num_val=32", "model=linear",
    "trainer=cpu", "trainer.max_epochs=1", "callbacks.pictures=null",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_needs_little_of_its_environment(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    poor = {"HOME": nowhere, "TMPDIR": nowhere, "XDG_CACHE_HOME": nowhere, "MPLCONFIGDIR": nowhere}
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "No/Where"}
    strict = {"PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "1"}
    terminal = {"TERM": "dumb", "COLUMNS": "1", "NO_COLOR": "1"}
    done = train(tmp_path, *QUICK, **poor, **plain, **strict, **terminal)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_sweep_without_any_stream_trains(tmp_path: Path) -> None:
    words = shlex.join([sys.executable, TRAIN, "-m", *QUICK, "seed=1,2", "name=s"])
    subprocess.run(["bash", "-c", f"{words} <&- >&- 2>&-"], cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("outputs/sweeps/s/seed-*/checkpoints/last.ckpt"))) == 2
