"""Several batches for each one that Lightning sees: the same results, whatever the length of a chunk."""

import itertools
import types
from collections.abc import Callable
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
from test_resume import SMALL, UNTRAINED, assert_same, stop_at

OWN = """
import torch
from glimpse.callbacks.ema import WeightAverage
from lightning.pytorch.callbacks import (
    Callback, GradientAccumulationScheduler, LambdaCallback, Timer
)

class Watch(Callback):
    def on_train_batch_end(self, trainer, *_):
        print("step", trainer.global_step)

class WatchingTimer(Timer):
    on_train_batch_end = Watch.on_train_batch_end

class WatchingAverage(WeightAverage):
    def __init__(self):
        super().__init__(decay=0.9)

    on_train_batch_end = Watch.on_train_batch_end

def lambdas() -> Callback:
    return LambdaCallback(on_train_batch_end=lambda trainer, *_: print("step", trainer.global_step))

def accumulating() -> Callback:
    return GradientAccumulationScheduler({0: 1, 1: 2})

def with_hook(params) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(params, 0.01)

    def before(optimizer, *_):
        found = [p.grad for group in optimizer.param_groups for p in group["params"]]
        print("gradients:", sum(g.double().sum().item() for g in found if g is not None))

    optimizer.register_step_pre_hook(before)
    return optimizer
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
    ("callbacks=[hard_examples]", "optimizer=muon"),
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


OwnRun = Callable[..., Path]


@pytest.fixture
def run_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnRun:
    """Train with a target of OWN as the only choice `own` of a group; return the run folder."""
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))

    def train(group: str, target: str, *options: str) -> Path:
        file = tmp_path / "conf" / group / "own.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = f"_target_: own_parts.{target}\n"
        in_list = group == "callbacks"
        file.write_text(f"own:\n  {content}" if in_list else content)
        choice = f"{group}=[own]" if in_list else f"{group}=own"
        place = (f"output_dir={tmp_path}", f"data_dir={tmp_path}")
        with scripting.process_unchanged():
            words = [*SMALL, *place, choice, *options]
            return scripting.run(words, config_dir=str(tmp_path / "conf"))[1]

    return train


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("Watch", "Watch"),
        ("lambdas", "LambdaCallback"),
        ("WatchingTimer", "WatchingTimer"),
        ("WatchingAverage", "WatchingAverage"),
    ],
)
def test_a_callback_of_ones_own_sees_every_batch_and_that_is_said(
    run_own: OwnRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    name: str,
) -> None:
    long_chunks(monkeypatch)
    run_own("callbacks", target, "trainer.max_epochs=1")
    printed = capsys.readouterr().out
    assert f"batches are trained one by one: the callback {name} has a hook for each" in printed
    assert [f"step {n}\n" in printed for n in range(1, 8)] == [True] * 7


def test_a_hook_before_the_optimizers_step_sees_what_it_sees_one_by_one(
    run_own: OwnRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gradients of the step before, because Lightning computes new ones within the step."""
    long_chunks(monkeypatch)
    seen = []
    for longest in (1, 128):
        monkeypatch.setattr(steps_ahead, "LONGEST_CHUNK", longest)
        run_own("optimizer", "with_hook", "trainer.max_epochs=1")
        printed = capsys.readouterr().out
        assert "one by one: optimizer SGD has a hook before each step" in printed
        seen.append([line for line in printed.splitlines() if line.startswith("gradients:")])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 7


def test_a_schedule_of_accumulation_is_followed_from_the_step_of_a_resume(
    run_own: OwnRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's callback sets it where epochs begin."""
    options = ("trainer.max_epochs=2", "augment=none")
    unbroken = run_own("callbacks", "accumulating", *options)
    with monkeypatch.context() as patch:
        stop_at(patch, "on_train_batch_end", 1, 3)
        with pytest.raises(KeyboardInterrupt):
            run_own(
                "callbacks", "accumulating", *options, "hydra.run.dir=" + str(tmp_path / "stopped")
            )
    assert_same(
        unbroken, run_own("callbacks", "accumulating", *options, f"resume={tmp_path / 'stopped'}")
    )


def test_an_early_stop_that_waits_for_min_steps_comes_at_the_same_step(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, int, int]]
) -> None:
    long_chunks(monkeypatch)
    execute(*SMALL, *UNTRAINED.split(), "trainer.max_epochs=6", "trainer.min_steps=17")
    assert seen[-1] == (2, 2, 17)


def test_the_chunk_follows_the_cost_of_a_step() -> None:
    assert chunk_length(0.020, 32) == 1
    assert chunk_length(0.019, 32) == 5
    assert chunk_length(0.002, 32) == 50
    assert chunk_length(1e-5, 128) == 128
    assert chunk_length(1e-5, 4) == 8  # it grows slowly
    assert chunk_length(3.0, 1) == 1
