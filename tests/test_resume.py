"""A run that was stopped goes on as if it had not been."""

import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from conftest import Execute, choices
from glimpse.callbacks.stop import StopOnSignal
from glimpse.errors import Interrupted
from makers import MAKERS

SMALL = (
    "data=synthetic", "data.shape=[1,12,12]", "data.num_train=100", "data.num_val=40",
    "data.batch_size=16", "model=convnet_bn", "model.widths=[8,16]", "model.hidden=16",
    "augment=crop_flip", "trainer=cpu", "trainer.max_epochs=3", "logger=none",
)  # fmt: skip


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    for name in first:
        assert torch.equal(first[name], second[name]), name


def stop_at(monkeypatch: pytest.MonkeyPatch, hook: str, epoch: int, batch: int) -> None:
    """Send this process SIGTERM in a hook of the given epoch and batch."""
    original = getattr(StopOnSignal, hook)

    def with_signal(self: StopOnSignal, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.current_epoch == epoch and arguments[3] == batch:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, *arguments)

    monkeypatch.setattr(StopOnSignal, hook, with_signal)


def check_stopped_equals_unbroken(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    where: tuple[str, int, int],
) -> None:
    unbroken = execute(*options, folder=tmp_path / "unbroken")
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, *where)
        with pytest.raises(Interrupted) as stop:
            execute(*options, folder=stopped)
    assert stop.value.exit_code == 143
    execute(*options, f"resume={stopped}", folder=stopped)
    assert_same(unbroken, stopped)
    rows = [(f / "metrics.csv").read_text().splitlines() for f in (unbroken, stopped)]
    first, second = ([line.split(",")[:7] for line in lines] for lines in rows)
    assert first == second


@pytest.mark.parametrize(
    ("option", "where"),
    [
        ("trainer.val_check_interval=0.5", ("on_validation_batch_end", 1, 0)),
        ("trainer.accumulate_grad_batches=2", ("on_train_batch_end", 1, 2)),
        ("trainer.limit_train_batches=5", ("on_train_batch_end", 1, 2)),
        ("optimizer=muon", ("on_train_batch_end", 1, 2)),
        ("trainer.max_steps=20", ("on_train_batch_end", 1, 2)),
        ("trainer.max_steps=20", ("on_train_batch_end", 1, 6)),  # the last of the epoch
    ],
)
def test_stopped_and_resumed_with_other_loops(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    where: tuple[str, int, int],
) -> None:
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, (*SMALL, option), where)


@pytest.mark.parametrize("scheduler", ["onecycle", "plateau", "step"])
@pytest.mark.parametrize(
    ("hook", "epoch", "batch"),
    [
        ("on_train_batch_end", 1, 2),
        ("on_train_batch_end", 0, 0),
        ("on_train_batch_end", 1, 5),
        ("on_train_batch_end", 1, 6),  # the last of the epoch
        ("on_validation_batch_end", 1, 1),
        ("on_validation_batch_end", 2, 2),  # the last of the run
    ],
)
def test_stopped_and_resumed_equals_unbroken(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    hook: str,
    epoch: int,
    batch: int,
) -> None:
    options = (*SMALL, f"scheduler={scheduler}")
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, options, (hook, epoch, batch))


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_batch_end"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_stopped_and_resumed_at_a_smaller_size(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, epoch: int
) -> None:
    options = (*SMALL, "data.shape=[1,32,32]", "callbacks=[progressive_sizes]")
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, options, (hook, epoch, 1))


def test_stopped_and_resumed_without_the_cache(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MAKERS["image_folder"](tmp_path / "data", per_class=20)
    options = (
        *SMALL[5:], "data=image_folder", f"data.root={tmp_path / 'data' / 'photos'}",
        "data.presize=16", "data.batch_size=8", "data.cache=false", "data.num_workers=1",
        "model.dropout=0.2",
    )  # fmt: skip
    where = ("on_train_batch_end", 1, 1)
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, options, where)


@pytest.mark.usefixtures("published_weights")
@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_stopped_and_resumed_equals_unbroken(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str
) -> None:
    options = (
        f"experiment={experiment}", "data=synthetic", "data.num_train=32", "data.num_val=16",
        "data.batch_size=16", "trainer=cpu", "trainer.max_epochs=3", "logger=none",
    )  # fmt: skip
    where = ("on_train_batch_end", 1, 0)
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, options, where)


def test_a_resumed_run_takes_another_weight_decay(execute: Execute) -> None:
    folder = execute(*SMALL, "optimizer=adamw", "trainer.max_epochs=1")
    more = ("optimizer=adamw", "optimizer.weight_decay=0", "trainer.max_epochs=2")
    execute(*SMALL, *more, f"resume={folder}", folder=folder)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
