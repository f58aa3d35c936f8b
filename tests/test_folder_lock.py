"""One process at a time works in a run folder."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import Execute
from glimpse.errors import UserError
from glimpse.files import write_text
from glimpse.folder_lock import NAME, held, is_held

HOLD = (
    "import sys, time; from pathlib import Path; from glimpse.folder_lock import held\n"
    "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_lock_ends_with_its_process_even_by_sigkill(tmp_path: Path) -> None:
    process = holder(tmp_path)
    assert is_held(tmp_path)
    with pytest.raises(UserError, match="another process is working"), held(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 10
    while is_held(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_held(tmp_path)
    with held(tmp_path), held(tmp_path):  # the same process may ask twice
        assert is_held(tmp_path)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_vanishes_hides_no_error(tmp_path: Path, is_replaced: bool) -> None:
    folder = tmp_path / "run"

    def train() -> None:
        shutil.rmtree(folder)
        if is_replaced:
            folder.write_text("")
        write_text(folder / "metrics.csv", "")

    with pytest.raises(UserError, match=r"cannot write .*metrics.csv: No"), held(folder):
        train()


def test_a_run_in_a_folder_that_is_in_use_is_refused_and_changes_nothing(
    tmp_path: Path, execute: Execute
) -> None:
    folder = tmp_path / "run"
    process = holder(folder)
    try:
        before = [path.name for path in folder.iterdir()]
        with pytest.raises(UserError, match="another process"):
            execute("data=synthetic", "model=linear", "trainer=cpu", folder=folder)
        assert [path.name for path in folder.iterdir()] == before
    finally:
        process.kill()
        process.communicate()
