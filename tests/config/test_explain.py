"""An error that nobody foresaw is one line, and its traceback is kept."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import HydraException
from torch import Tensor

from conftest import REPOSITORY, Execute
from glimpse.callbacks.epoch_record import EpochRecord
from glimpse.config.build import build
from glimpse.config.compose import composed
from glimpse.config.explain import CrashError, crash, explain
from glimpse.errors import UserError
from glimpse.models.linear import Linear

FAST = ("model=linear", "trainer=cpu", "trainer.max_epochs=1", "logger=none")


def boom(*_: Any, **__: Any) -> Any:
    raise KeyError("oops")


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Linear, "forward"),
        (Linear, "__init__"),
        (EpochRecord, "on_train_epoch_end"),
        (EpochRecord, "__init__"),
    ],
)
def test_the_cause_of_a_crash_is_kept(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str
) -> None:
    monkeypatch.setattr(owner, method, boom)
    with pytest.raises(CrashError) as error:
        execute(*FAST)
    line = str(error.value)
    kept = tmp_path / "run" / "traceback.txt"
    assert line.startswith("KeyError: 'oops'")
    assert str(kept) in line
    assert f"{Path(__file__).name}:" in line
    text = kept.read_text()
    assert text.startswith("Traceback")
    assert 'raise KeyError("oops")' in text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", line)


def test_a_later_attempt_that_finishes_removes_the_traceback(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Linear, "forward", boom)
        with pytest.raises(CrashError):
            execute(*FAST)
    execute(*FAST)
    assert not (tmp_path / "run" / "traceback.txt").exists()


def test_a_mistake_of_the_user_leaves_no_traceback(execute: Execute, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        execute("model=convnet_template", *FAST[1:])
    assert not (tmp_path / "run" / "traceback.txt").exists()


def test_the_command_ends_with_one_line(tmp_path: Path) -> None:
    script = (
        "import runpy, sys\n"
        "import glimpse.data.sets.digits as digits\n"
        "digits.Digits.read = lambda self: [][1]\n"
        f"sys.argv[0] = {str(REPOSITORY / 'train.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *FAST],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "IndexError: list index out of range" in result.stderr
    [kept] = tmp_path.glob("outputs/*/*/traceback.txt")
    assert kept.name in result.stderr
    assert "in contents_of" in kept.read_text()


def test_without_a_folder_the_traceback_is_kept_elsewhere(tmp_path: Path) -> None:
    try:
        boom()
    except KeyError as error:
        found = crash(error, tmp_path / "none")
    path = Path(str(found).rpartition(" ")[2])
    assert "oops" in path.read_text()


@pytest.mark.parametrize(
    ("deletion", "message"),
    [
        ("~callbacks", "~callbacks: type callbacks=[] for none"),
        ("~metrics", "~metrics: type metrics=[] for none"),
        (
            "~callbacks.pictures=1",
            "~callbacks.pictures: type callbacks.pictures=null to turn it off",
        ),
        ("~model=linear", "~model removes nothing here: type model=<value>"),
        ("~modle", "modle is not a key of this configuration: did you mean model?"),
    ],
)
def test_a_deletion_says_what_to_type(deletion: str, message: str) -> None:
    with pytest.raises(HydraException) as error:
        composed([deletion])
    assert explain(error.value, [deletion]) == message


MEMORY = "out of memory: type a lower data.batch_size"
PROCESSES = "the system starts no more processes or threads: raise the limit that ulimit -u shows"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (MemoryError("Unable to allocate 1.83 GiB"), MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …"), MEMORY),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), MEMORY),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files: type ulimit -n 4096"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), PROCESSES),
        (RuntimeError("can't start new thread"), PROCESSES),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "no temporary folder can be written: type export TMPDIR=",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "too little memory to load torch: raise the limit that ulimit -v shows",
        ),
    ],
)
def test_a_shortage_has_a_remedy(error: Exception, remedy: str, tmp_path: Path) -> None:
    try:
        raise error
    except type(error):
        found = str(crash(error, tmp_path))
    assert found.startswith(remedy)


def test_a_path_that_is_too_long_is_shortened(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as error:
        (tmp_path / ("x" * 5000)).stat()
    found = str(crash(error.value, None))
    assert found.startswith(str(tmp_path)[:60])
    assert found.endswith("… is too long for a path: type a shorter one")


def test_what_would_reach_the_terminal_as_a_command_is_escaped() -> None:
    assert explain(UserError("a\x1b[31m\nb")) == "a\\x1b[31m\\nb"


def test_arguments_that_are_not_taken_are_told_before_anything_is_called() -> None:
    with pytest.raises(UserError, match="does not accept these arguments: got an unexpected"):
        build("loss", {"_target_": "torch.nn.MSELoss", "weights": 1})
    with pytest.raises(UserError, match="rejected its arguments: Invalid beta"):
        build("optimizer", {"_target_": "torch.optim.Adam", "betas": [2, 3]}, [Tensor([1.0])])


def test_a_function_is_built_only_if_it_returns_what_its_group_wants() -> None:
    with pytest.raises(UserError, match=r"_target_=.*: expected a "):
        build("data", {"_target_": "glimpse.data.download.fetch"})
