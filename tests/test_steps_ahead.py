"""Several batches for each one that Lightning sees: the same results, whatever the length of a chunk."""

import itertools
import types
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from conftest import Execute, slow
from glimpse import scripting, steps_ahead
from glimpse.callbacks.progress import Progress
from glimpse.steps_ahead import chunk_length
from test_resume import SMALL, assert_same

WATCHING = """
from lightning.pytorch.callbacks import Callback

class Watch(Callback):
    def on_train_batch_end(self, trainer, *_):
        print("step", trainer.global_step)
"""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """The epoch, batch and global step at the end of each batch that Lightning sees."""
    found: list[tuple[int, int, int]] = []
    original = Progress.on_train_batch_end

    def note(self: Progress, trainer: pl.Trainer, *rest: Any) -> None:
        found.append((trainer.current_epoch, rest[-1], trainer.global_step))
        original(self, trainer, *rest)

    monkeypatch.setattr(Progress, "on_train_batch_end", note)
    return found


def long_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks as long as the trainer allows, after the first of an epoch, however slow this machine."""
    monkeypatch.setattr(steps_ahead, "chunk_length", lambda seconds, last: 1000)


OPTIONS = [
    ("augment=[crop_flip,cutmix]", "callbacks=[ema]"),
    slow(("trainer.val_check_interval=3",)),
    ("trainer.val_check_interval=5", "trainer.check_val_every_n_epoch=null", "scheduler=plateau"),
    ("trainer.max_steps=10", "optimizer=muon"),
    ("trainer.limit_train_batches=5", "scheduler=step", "trainer.gradient_clip_val=0.1"),
    slow(("trainer.overfit_batches=4", "trainer.precision=bf16-mixed")),
    ("callbacks=[progressive_sizes]", "trainer.max_epochs=6"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options[0])
def test_the_length_of_a_chunk_changes_nothing(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: list[tuple[int, int, int]],
    options: tuple[str, ...],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(steps_ahead, "LONGEST_CHUNK", 1)
        one_by_one = execute(*SMALL, *options, folder=tmp_path / "one_by_one")
    every = list(seen)
    seen.clear()
    long_chunks(monkeypatch)
    in_chunks = execute(*SMALL, *options, folder=tmp_path / "in_chunks")
    assert set(seen) < set(every)  # fewer, and each with the number that it has one by one
    assert seen[-1] == every[-1]
    assert_same(one_by_one, in_chunks)
    for name in ("best", "last"):
        first, second = (
            torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
            for folder in (one_by_one, in_chunks)
        )
        for key in ("global_step", "epoch", "lr_schedulers", "optimizer_states", "loops"):
            assert_equal(first[key], second[key])
    assert [row[:7] for row in rows(one_by_one)] == [row[:7] for row in rows(in_chunks)]


def rows(folder: Path) -> list[list[str]]:
    return [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        assert one == other


def test_a_chunk_ends_where_lightning_has_something_to_do(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, int, int]]
) -> None:
    long_chunks(monkeypatch)
    execute(*SMALL, "trainer.val_check_interval=3", "trainer.max_steps=12")
    # Seven batches an epoch: the first, two before each validation, the last; then the last step.
    assert [batch for _, batch, _ in seen] == [0, 2, 5, 6, 0, 2, 4]
    assert [step for _, _, step in seen] == [1, 3, 6, 7, 8, 10, 12]


def test_an_epochs_chunks_are_soon_as_long_as_those_before(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, int, int]]
) -> None:
    monkeypatch.setattr(steps_ahead, "chunk_length", lambda seconds, last: 2 * last)
    execute(*SMALL, "trainer.max_epochs=2")
    assert [batch for _, batch, _ in seen] == [0, 2, 6, 0, 6]


def test_a_chunk_of_slow_steps_ends_early(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, int, int]]
) -> None:
    long_chunks(monkeypatch)
    ticks = itertools.count(0, 0.2)  # seconds by the clock of steps_ahead.py
    clock = types.SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(steps_ahead, "time", clock)
    execute(*SMALL, "trainer.max_epochs=1")
    assert [batch for _, batch, _ in seen] == [0, 3, 6]


@pytest.mark.parametrize(
    "option",
    ["trainer.accumulate_grad_batches=2", "trainer.profiler=simple", "trainer.strategy=ddp"],
)
def test_lightning_sees_every_batch_where_it_must(
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    seen: list[tuple[int, int, int]],
    option: str,
) -> None:
    long_chunks(monkeypatch)
    execute(*SMALL, option, "trainer.max_epochs=1")
    assert [batch for _, batch, _ in seen] == list(range(7))


def test_a_callback_of_ones_own_sees_every_batch_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long_chunks(monkeypatch)
    (tmp_path / "watching.py").write_text(WATCHING)
    group = tmp_path / "conf" / "callbacks"
    group.mkdir(parents=True)
    (group / "watch.yaml").write_text("watch:\n  _target_: watching.Watch\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    place = (f"output_dir={tmp_path}", f"data_dir={tmp_path}", "callbacks=[watch]")
    with scripting.process_unchanged():
        scripting.run([*SMALL, *place, "trainer.max_epochs=1"], config_dir=str(tmp_path / "conf"))
    printed = capsys.readouterr().out
    assert "batches are trained one by one: the callback Watch has a hook for each" in printed
    assert [f"step {n}\n" in printed for n in range(1, 8)] == [True] * 7


def test_the_chunk_follows_the_cost_of_a_step() -> None:
    assert chunk_length(0.020, 32) == 1
    assert chunk_length(0.001, 32) == 25
    assert chunk_length(1e-5, 128) == 128
    assert chunk_length(1e-5, 4) == 8  # it grows slowly
    assert chunk_length(3.0, 1) == 1
