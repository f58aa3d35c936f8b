"""Commands in new processes, for tests that start, watch and stop them."""

import subprocess
import sys
import time
from pathlib import Path

from conftest import TRAIN
from preloaded import environment


def train(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python train.py <arguments>` in a folder, to its end."""
    return subprocess.run(
        [sys.executable, TRAIN, *arguments],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def wait_for(path: Path, text: str) -> None:
    """Wait until a file contains some text."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{text!r} did not appear in {path}: {path.read_text()}")
