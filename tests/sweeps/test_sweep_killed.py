"""A sweep that is killed at random moments, and repeated until it is done, equals an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweeping import QUICK, command, environment, states, sweep
from test_grid import require_equal

from conftest import slow

NUM_EPOCHS = 60
SWEPT = ("model=linear,mlp", f"trainer.max_epochs={NUM_EPOCHS}")
NAMES = ("model-linear", "model-mlp")
MOST_COMMANDS = 12


def progress(folder: Path) -> int:
    """The epochs that all jobs have recorded together."""
    files = list(folder.glob("outputs/sweeps/s/*/metrics.csv"))
    return sum(max(0, len(file.read_text().splitlines()) - 1) for file in files)


def workers(folder: Path) -> list[int]:
    """The processes that lead a session of their own and work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_here = (entry / "cwd").resolve() == folder.resolve()
            if is_here and os.getsid(int(entry.name)) == int(entry.name):
                found.append(int(entry.name))
        except (OSError, ProcessLookupError):
            continue
    return found


def disturbed(folder: Path, rng: random.Random, *options: str) -> int:
    """Run the command once and send one signal at a random moment. Returns its exit code."""
    goal = progress(folder) + rng.randrange(NUM_EPOCHS)
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            command("-m", *QUICK, *SWEPT, *options), cwd=folder, env=environment(), stdout=log,
            stderr=log,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while process.poll() is None and progress(folder) < goal and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.1)
        of_worker = rng.random() < 0.5 and workers(folder)
        number = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
        if of_worker:
            os.kill(rng.choice(of_worker), number)
        else:
            process.send_signal(number)
        return process.wait(120)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
@pytest.mark.parametrize(
    ("seed", "num_signals", "options"),
    [
        slow(0, 2, ()),
        slow(1, 4, ()),
        slow(2, 4, ("hydra.launcher.n_jobs=2",)),
    ],
)
def test_a_sweep_survives_whatever_ends_it(
    seed: int,
    num_signals: int,
    options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "disturbed"
    folder.mkdir()
    for _ in range(num_signals):
        disturbed(folder, rng, *options)
    for _ in range(MOST_COMMANDS):
        done = subprocess.run(
            command("-m", *QUICK, *SWEPT, *options), cwd=folder, env=environment(), check=False,
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        if done.returncode == 0:
            break
    found = folder / "outputs" / "sweeps" / "s"
    assert states(found) == dict.fromkeys(NAMES, "finished"), done.stderr
    deadline = time.monotonic() + 30
    while workers(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers(folder) == []
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    expected = sweep(monkeypatch, undisturbed, *SWEPT)
    for name in NAMES:
        require_equal(found / name, expected / name)
