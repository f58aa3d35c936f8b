"""A sweep that is killed at random moments, and repeated until it is done, equals an undisturbed one.

The program that disturbs and compares is benchmarks/soak.py; `make soak` lets it go on for long.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY, slow


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.timeout(900)  # it takes a minute on an idle machine, and much longer on a busy one
@pytest.mark.parametrize(("kind", "seed"), [slow("side_by_side", 1), slow("two_processes", 2)])
def test_a_sweep_survives_whatever_ends_it(kind: str, seed: int, tmp_path: Path) -> None:
    words = ("--minutes", "0", "--kind", kind, "--seed", str(seed))
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "soak.py"), *words],
        env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rounds: 1" in done.stdout
    if (
        "SIGKILL to all" not in done.stdout
    ):  # then nobody is left to remove the socket of the workers
        assert list(tmp_path.iterdir()) == []
