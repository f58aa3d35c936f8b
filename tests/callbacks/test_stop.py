"""Several processes agree to stop without asking each other at every batch."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from commands import train, wait_for
from conftest import REPOSITORY
from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.callbacks.stop_on_signal import StopOnSignal
from glimpse.classifier import ImageClassifier
from glimpse.errors import Interrupted
from preloaded import environment


class TwoProcesses:
    """What the callback sees of a run of two, the other of which says what `other` returns."""

    world_size = 2
    fast_dev_run = True  # saves no checkpoint
    should_stop = False
    global_step = 0

    def __init__(self, other: Callable[[], tuple[float, float]], *, accumulate: int = 1) -> None:
        self.accumulate_grad_batches = accumulate
        self.fit_loop = SimpleNamespace(  # no validation within an epoch
            _data_fetcher=None, epoch_loop=SimpleNamespace(_is_training_done=False)
        )
        self.other = other
        self.num_looks = 0
        self.strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=self.reduce)
        self.lightning_module = Mock(spec=ImageClassifier)

    def reduce(self, mine: Tensor, *, reduce_op: str) -> Tensor:
        assert reduce_op == "max"
        self.num_looks += 1
        return torch.maximum(mine, mine.new_tensor(self.other()))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Its `now` is what the callback takes for the time, in seconds."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("glimpse.callbacks.stop_on_signal.time.monotonic", lambda: clock.now)
    return clock


def train_epoch(
    callback: StopOnSignal, trainer: Any, clock: SimpleNamespace, num_batches: int, seconds: float
) -> None:
    module: Any = None
    callback.on_train_epoch_start(trainer, module)
    for batch in range(num_batches):
        clock.now += seconds
        trainer.fit_loop.epoch_loop._is_training_done = batch == num_batches - 1
        callback.on_train_batch_end(trainer, module, None, None, batch)


@pytest.mark.parametrize("seconds", [0.0001, 0.004, 0.02, 0.3, 3.0])
def test_processes_look_about_once_a_second(
    tmp_path: Path, clock: SimpleNamespace, seconds: float
) -> None:
    trainer = TwoProcesses(lambda: (0, 0))
    callback = StopOnSignal(Checkpoints(tmp_path))
    train_epoch(callback, trainer, clock, 2000, seconds)
    train_epoch(callback, trainer, clock, 2000, seconds)
    wanted = min(4000, max(4000 / 200, clock.now))
    assert 0.8 * wanted <= trainer.num_looks <= 1.4 * wanted + 4


def test_all_take_the_time_of_the_slowest(tmp_path: Path, clock: SimpleNamespace) -> None:
    slow, fast = TwoProcesses(lambda: (0, 0.1)), TwoProcesses(lambda: (0, 0))
    for trainer in (slow, fast):
        callback = StopOnSignal(Checkpoints(tmp_path))
        train_epoch(callback, trainer, clock, 1000, 0.001)
    assert slow.num_looks == pytest.approx(100, abs=5)
    assert fast.num_looks < 10


def test_one_process_asked_is_enough_within_two_seconds(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    trainer = TwoProcesses(lambda: (float(clock.now > 7), 0))
    callback = StopOnSignal(Checkpoints(tmp_path))
    with pytest.raises(Interrupted) as stop:
        train_epoch(callback, trainer, clock, 10_000, 0.01)
    assert stop.value.exit_code == 143
    assert 7 < clock.now < 9


@pytest.mark.parametrize("seconds", [0.01, 3.0])
def test_no_look_between_the_batches_of_a_step_nor_after_the_last(
    tmp_path: Path, clock: SimpleNamespace, seconds: float
) -> None:
    looked_at: list[float] = []

    def other() -> tuple[float, float]:
        looked_at.append(round(clock.now / seconds))
        return 0, 0

    callback = StopOnSignal(Checkpoints(tmp_path))
    train_epoch(callback, TwoProcesses(other, accumulate=4), clock, 400, seconds)
    assert len(looked_at) > 3
    assert all(batch % 4 == 0 for batch in looked_at)
    assert 400 not in looked_at


@pytest.mark.slow
def test_ddp_on_two_processes_stops_at_once_and_resumes(tmp_path: Path) -> None:
    small = (
        "data=synthetic", "data.shape=[1,8,8]", "data.num_train=40000", "data.num_val=32",
        "data.batch_size=16", "model=linear", "trainer=ddp_cpu", "trainer.max_epochs=1000",
        "trainer.accumulate_grad_batches=3", "callbacks.pictures=null", "logger=none", "test=false",
    )  # fmt: skip
    log = tmp_path / "log"
    command = [sys.executable, str(REPOSITORY / "train.py"), *small]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=file, stderr=file
        )
        try:
            wait_for(log, "epoch 1/")
            time.sleep(1)  # into the second epoch
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143, log.read_text()
        finally:
            process.kill()
            process.wait()
    [folder] = tmp_path.glob("outputs/*/*")
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    batch = saved["glimpse"]["next_batch"]["next_batch"]
    assert 0 < batch < 1250
    assert batch % 3 == 0
    epochs = saved["epoch"] + 1
    result = train(tmp_path, f"resume={folder}", f"trainer.max_epochs={epochs}")
    assert result.returncode == 0, result.stderr
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    assert f"epoch {epochs}/{epochs}" in result.stdout
