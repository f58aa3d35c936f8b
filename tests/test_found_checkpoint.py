"""Which checkpoint a path means, and what to type where it means none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glimpse.errors import UserError
from glimpse.found_checkpoint import find_checkpoint, newest_run


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A folder of two runs, of which the second has the newer checkpoint."""
    for number, name in enumerate(("digits-mlp/one", "sweeps/first/two")):
        last = tmp_path / "outputs" / name / "checkpoints" / "last.ckpt"
        last.parent.mkdir(parents=True)
        last.touch()
        os.utime(last, (number, number))
    return tmp_path / "outputs"


def test_the_newest_run_is_suggested(outputs: Path) -> None:
    assert newest_run(outputs) == outputs / "sweeps" / "first" / "two"
    for wrong in (outputs, outputs.parent / "output"):
        with pytest.raises(
            UserError, match=r"type a run folder, such as .*outputs/sweeps/first/two$"
        ):
            find_checkpoint(wrong)
    assert newest_run(outputs / "nowhere") is None


def test_another_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"JFIF")
    with pytest.raises(UserError, match="is not a checkpoint, or it is damaged: type a run folder"):
        find_checkpoint(tmp_path / "cat.jpg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate nowhere", "nowhere: there is no such run folder or checkpoint"),
        ("predict {run} nowhere.jpg", "nowhere.jpg: there is no such file or folder"),
        ("look {run} {run}", "is a folder, expected an image file"),
        ("repeat nowhere", "nowhere: there is no such folder"),
        ("report nowhere", "nowhere: there is no such folder, expected a folder of runs"),
        ("evaluate {run} --split tset", "'tset' is not one of 'train', 'val', 'test'"),
    ],
)
def test_a_wrong_path_is_named_before_torch_is_imported(
    outputs: Path, words: str, message: str
) -> None:
    (outputs.parent / "torch.py").write_text("raise SystemExit('torch was imported')")
    script = "import sys; from glimpse.cli.entry import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", script, *words.format(run=outputs / "digits-mlp" / "one").split()],
        cwd=outputs.parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(outputs.parent), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
