"""A run that was stopped goes on as if it had not been."""

import json
import math
import os
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf

from attempts import curves
from conftest import Execute, choices, composed, slow
from glimpse import steps_ahead
from glimpse.callbacks.epoch_record import EpochRecord
from glimpse.callbacks.run_state import restore_numbers
from glimpse.callbacks.stop_on_signal import StopOnSignal
from glimpse.checkpoint_file import AtomicCheckpointIO, is_intact
from glimpse.classifier import ImageClassifier
from glimpse.counting import Counts
from glimpse.crash import CrashError
from glimpse.errors import Interrupted, UserError
from glimpse.files import write_text
from glimpse.loggers import building
from glimpse.records import read_rows
from glimpse.run import run
from glimpse.runs.folder import read_run
from glimpse.runs.settings import edited_settings
from glimpse.runs.trained import TrainedRun
from makers import MAKERS

SMALL = (
    "data=synthetic", "data.shape=[1,12,12]", "data.num_train=100", "data.num_val=40",
    "data.batch_size=16", "model=convnet_bn", "model.widths=[8,16]", "model.hidden=16",
    "augment=crop_flip", "trainer=cpu", "trainer.max_epochs=3", "logger=none",
)  # fmt: skip


# Stops early after the second epoch.
UNTRAINED = "optimizer.lr=0 callbacks=[early_stopping] callbacks.early_stopping.patience=1"


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    for name in first:
        assert torch.equal(first[name], second[name]), name


def stop_at(
    monkeypatch: pytest.MonkeyPatch,
    hook: str,
    epoch: int,
    batch: int,
    number: signal.Signals = signal.SIGTERM,
) -> None:
    """Send this process a signal in a hook of the given epoch and batch."""
    original = getattr(StopOnSignal, hook)

    def with_signal(self: StopOnSignal, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.current_epoch == epoch and arguments[3] == batch:
            os.kill(os.getpid(), number)
        original(self, trainer, *arguments)

    monkeypatch.setattr(StopOnSignal, hook, with_signal)
    monkeypatch.setattr(steps_ahead, "LONGEST_CHUNK", 1)  # or the hook might not see that batch


def check_stopped_equals_unbroken(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    where: tuple[str, int, int],
    number: signal.Signals = signal.SIGTERM,
) -> None:
    unbroken = execute(*options, folder=tmp_path / "unbroken")
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, *where, number)
        with pytest.raises(Interrupted) as stop:
            execute(*options, folder=stopped)
    assert stop.value.exit_code == 128 + number
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
        slow("trainer.limit_train_batches=5", ("on_train_batch_end", 1, 2)),
        ("optimizer=muon", ("on_train_batch_end", 1, 2)),
        slow("trainer.max_steps=20", ("on_train_batch_end", 1, 2)),
        ("trainer.max_steps=20", ("on_train_batch_end", 1, 6)),  # the last of the epoch
        # No validation ends the last epoch, so nothing is left for early stopping to look at.
        ("trainer.max_steps=9 callbacks=[early_stopping]", ("on_train_batch_end", 1, 0)),
        ("trainer.max_steps=9", ("on_train_batch_end", 1, 1)),  # the last step
        ("trainer.overfit_batches=2", ("on_train_batch_end", 1, 1)),
        (f"{UNTRAINED} trainer.max_epochs=6", ("on_validation_batch_end", 1, 1)),  # ends the run
        (f"{UNTRAINED} trainer.max_epochs=6 trainer.min_epochs=4", ("on_train_batch_end", 2, 2)),
        # Weights that are not fp32 must not be rounded to it on their way back.
        ("trainer.precision=64-true callbacks=[ema]", ("on_train_batch_end", 1, 2)),
        slow("trainer.precision=bf16-true callbacks=[ema]", ("on_train_batch_end", 1, 2)),
        slow(
            "trainer.precision=64-true trainer.accumulate_grad_batches=2",
            ("on_train_batch_end", 1, 2),
        ),
    ],
)
def test_stopped_and_resumed_with_other_loops(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    where: tuple[str, int, int],
) -> None:
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, (*SMALL, *option.split()), where)


def test_the_numbers_in_the_state_of_an_optimizer_are_not_rounded() -> None:
    """torch rounds all but the step to the type of the weights; NAdam has another number."""

    def built() -> tuple[torch.nn.Parameter, torch.optim.NAdam]:
        weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        return weight, torch.optim.NAdam([weight])

    weight, optimizer = built()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    other, resumed = built()
    resumed.load_state_dict(optimizer.state_dict())
    restore_numbers(resumed, optimizer.state_dict())
    assert resumed.state[other]["mu_product"].dtype == torch.float32
    assert resumed.state[other]["mu_product"] == optimizer.state[weight]["mu_product"]
    resumed.state.clear()  # as of an optimizer that wraps another, which has the state
    restore_numbers(resumed, optimizer.state_dict())


def test_stopped_by_a_cluster_and_resumed(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `sbatch --signal=USR1@60`; the default of this signal would end the process."""
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    where = ("on_train_batch_end", 1, 2)
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, SMALL, where, signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("owner", "hook", "saved"),
    [
        (EpochRecord, "on_train_batch_end", 10),
        (ImageClassifier, "training_step", 7),  # a step that was cut off cannot be saved
        (Counts, "add", 7),
    ],
)
def test_a_keyboard_interrupt_of_own_code_is_like_ctrl_c(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    hook: str,
    saved: int,
) -> None:
    unbroken, folder = execute(*SMALL, folder=tmp_path / "unbroken"), tmp_path / "run"
    original, calls = getattr(owner, hook), iter(range(1000))

    def interrupted(self: Any, *arguments: Any, **named: Any) -> Any:
        found = original(self, *arguments, **named)
        if (folder / "metrics.csv").exists() and next(calls) == 2:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(owner, hook, interrupted)
        patch.setattr(steps_ahead, "LONGEST_CHUNK", 1)
        with pytest.raises(Interrupted) as stop:
            execute(*SMALL, folder=folder)
    assert stop.value.exit_code == 130
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == saved
    execute(*SMALL, f"resume={folder}", folder=folder)
    assert_same(unbroken, folder)


# A schedule that steps every batch is stopped everywhere; one that steps every epoch, where an epoch ends;
# one that waits for the validation, in it.
REPRESENTATIVES = {
    ("step", "on_train_batch_end", 1, 6),
    ("plateau", "on_validation_batch_end", 1, 1),
}


@pytest.mark.parametrize(
    ("scheduler", "hook", "epoch", "batch"),
    [
        case if scheduler == "onecycle" or case in REPRESENTATIVES else slow(*case)
        for scheduler in ("onecycle", "plateau", "step")
        for where in (
            ("on_train_batch_end", 0, 0),
            ("on_train_batch_end", 1, 5),
            ("on_train_batch_end", 1, 6),  # the last of the epoch
            ("on_validation_batch_end", 1, 1),
            ("on_validation_batch_end", 2, 2),  # the last of the run
        )
        for case in [(scheduler, *where)]
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


@pytest.mark.parametrize(
    ("hook", "epoch"),
    [
        ("on_train_batch_end", 1),
        ("on_validation_batch_end", 0),
        slow("on_train_batch_end", 0),
        slow("on_validation_batch_end", 1),
    ],
)
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


# What the tests above do not have: test-time flip with Muon, and a loss on probabilities.
# callbacks/test_finetune.py stops in a phase of frozen layers, test_frozen_features.py with features that are kept.
DISTINCT = ("cifar10_fast", "birds_from_airplanes_mse")


@pytest.mark.usefixtures("published_weights")
@pytest.mark.parametrize(
    "experiment", [name if name in DISTINCT else slow(name) for name in choices("experiment")]
)
def test_every_experiment_stopped_and_resumed_equals_unbroken(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: str
) -> None:
    epochs = (
        4 if experiment in ("tiny_imagenet_best", "tiny_imagenet_fast") else 3
    )  # one at full size
    options = (
        f"experiment={experiment}", "data=synthetic", "data.num_train=32", "data.num_val=16",
        "data.batch_size=16", "trainer=cpu", f"trainer.max_epochs={epochs}", "logger=none",
    )  # fmt: skip
    where = ("on_train_batch_end", 1, 0)
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, options, where)


def test_a_resumed_run_takes_another_weight_decay(execute: Execute) -> None:
    folder = execute(*SMALL, "optimizer=adamw", "trainer.max_epochs=1")
    more = ("optimizer=adamw", "optimizer.weight_decay=0", "trainer.max_epochs=2")
    execute(*SMALL, *more, f"resume={folder}", folder=folder)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3


def rates(folder: Path) -> list[float]:
    """The rate at the end of each epoch."""
    return [float(row["lr"]) for row in read_rows(folder, "metrics.csv")[1]]


@pytest.mark.parametrize(
    "option", ["data.batch_size=128", "data.batch_size=32", "trainer.accumulate_grad_batches=2"]
)
def test_with_other_batches_a_schedule_continues_at_the_same_part_of_the_run(
    execute: Execute, finished: Path, option: str
) -> None:
    execute(*LINEAR, "trainer.max_epochs=4", option, f"resume={finished}", folder=finished)
    third, last = rates(finished)[2:]
    assert third == pytest.approx(2.8e-4, rel=0.1)
    assert last < 1e-5


def test_a_schedule_of_a_run_that_max_steps_ends_counts_steps(execute: Execute) -> None:
    options = (*LINEAR[:-2], "logger=none", "trainer.max_epochs=100", "data.batch_size=32")
    folder = execute(*options, "trainer.max_steps=68")
    more = (*options, "data.batch_size=256", "trainer.max_steps=78")
    execute(*more, f"resume={folder}", folder=folder)
    assert rates(folder)[-1] < 1e-4


def test_another_schedule_after_other_batches_begins_at_the_part_of_the_run(
    execute: Execute, finished: Path
) -> None:
    options = (*LINEAR, "data.batch_size=512")
    execute(*options, "trainer.max_epochs=4", f"resume={finished}", folder=finished)
    more = (*options, "trainer.max_epochs=8", "scheduler=cosine")
    execute(*more, f"resume={finished}", folder=finished)
    assert rates(finished)[4] > 3e-4


def test_an_average_of_the_weights_cannot_be_turned_off(execute: Execute) -> None:
    options = (*LINEAR, "callbacks=[ema]")
    folder = execute(*options)
    more = (*options, "callbacks.ema=null", "trainer.max_epochs=3")
    with pytest.raises(UserError, match="keep ema in callbacks"):
        execute(*more, f"resume={folder}", folder=folder)


# The maximum of train/loss is its first value, so that each later epoch is a bad one.
PLATEAU = ("scheduler=plateau", "monitor=train/loss", "mode=max", "scheduler.patience=0")


def test_a_resumed_run_takes_another_schedule_from_its_first_rate(execute: Execute) -> None:
    folder = execute(*SMALL, "optimizer.lr=0.02")
    more = (*SMALL, "optimizer.lr=0.02", "scheduler=plateau", "trainer.max_epochs=4")
    execute(*more, f"resume={folder}", folder=folder)
    assert rates(folder)[2] < 0.02
    assert rates(folder)[3] == 0.02


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("optimizer.weight_decay=0", [0.02, 0.02, 0.002, 0.0002]),  # the reductions stay
        ("optimizer.lr=0.01", [0.02, 0.02, 0.01, 0.001]),
        ("scheduler.factor=0.5", [0.02, 0.02, 0.002, 0.001]),
        ("scheduler.patience=1", [0.02, 0.02, 0.002, 0.002]),
        ("monitor=train/acc mode=min", [0.02, 0.02, 0.002, 0.002]),  # its first value is the best
    ],
)
def test_a_resumed_plateau_goes_on_with_new_settings(
    execute: Execute, option: str, expected: list[float]
) -> None:
    options = (*SMALL, "optimizer=adamw", "optimizer.lr=0.02", *PLATEAU)
    folder = execute(*options, "trainer.max_epochs=2")
    more = (*options, "trainer.max_epochs=4", *option.split())
    execute(*more, f"resume={folder}", folder=folder)
    assert rates(folder) == pytest.approx(expected)


def test_a_resumed_run_takes_another_patience(execute: Execute) -> None:
    options = (*LINEAR, "callbacks=[early_stopping]", "optimizer.lr=0", "trainer.max_epochs=9")
    folder = execute(*options, "callbacks.early_stopping.patience=1")
    assert len(rates(folder)) == 2
    more = (*options, "callbacks.early_stopping.patience=3")
    execute(*more, f"resume={folder}", folder=folder)
    assert len(rates(folder)) == 4


# Refused ------------------------------------------------------------------------------------------


def test_fewer_epochs_than_were_trained_are_refused(
    execute: Execute, trained_once: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_once, folder)
    before = recorded(folder)
    with pytest.raises(UserError, match=r"type trainer\.max_epochs=2 or more"):
        execute(*LINEAR, "trainer.max_epochs=1", f"resume={folder}", folder=folder)
    assert recorded(folder) == before


def recorded(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


LINEAR = (
    "model=linear",
    "data.batch_size=64",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "logger=none",
)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("linear") / "run"
    config, chosen = composed(*LINEAR, "callbacks.pictures=null")
    run(config, folder, {group: str(chosen[group]) for group in ("data", "model")})
    return folder


@pytest.fixture
def finished(trained_once: Path, tmp_path: Path) -> Path:
    """The folder of a finished run of LINEAR, to resume or to damage."""
    return Path(shutil.copytree(trained_once, tmp_path / "run"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=mlp", "has a different model"),
        ("optimizer=sgd", "has a different optimizer"),
        ("data.normalize=none", r"data\.normalize=none.*type data\.normalize=dataset"),
        ("data.size=16", r"data\.size=16.*type data\.size=null"),
        ("data.classes=[1,2]", "has 10 classes, but this data has 2"),
        ("data.classes=[1,0,2,3,4,5,6,7,8,9]", r"data\.classes=.*type data\.classes=null"),
        ("data.split_seed=1", "different data, or on a different split"),
        ("data=cifar10 data.url=file:///nowhere.tar.gz", "no such file"),
        ("callbacks=[finetune]", "finetune"),
        ("trainer.gradient_clip_algorithm=x trainer.gradient_clip_val=1", "gradient_clip"),
    ],
)
def test_a_refused_resume_changes_nothing(
    execute: Execute, finished: Path, override: str, message: str
) -> None:
    before = recorded(finished)
    with pytest.raises(UserError, match=message):
        execute(*LINEAR, *override.split(), f"resume={finished}", folder=finished)
    assert recorded(finished) == before


def test_a_resume_without_an_intact_checkpoint_changes_nothing(
    execute: Execute, finished: Path
) -> None:
    folder = finished
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    before = recorded(folder)
    with pytest.raises(UserError, match=r"no checkpoint .* can be used .* damaged"):
        execute(*LINEAR, f"resume={folder}", folder=folder)
    assert recorded(folder) == before


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("state_dict", "network.head.weight"), torch.zeros(3)),
        (("optimizer_states",), None),
        (("classifier",), {}),
        (("glimpse", "next_batch"), {}),
        (("glimpse", "next_step"), []),
        (("glimpse", "config", "callbacks"), 3),
        (("callbacks", "EpochRecord"), {"most_images": 1, "images": 0, "rows": [[]]}),
        (("callbacks", "EpochRecord"), {"most_images": 1, "images": 0, "rows": "epoch\nnan"}),
        (("callbacks", "EpochRecord"), {"most_images": 1, "images": 0, "rows": "epoch\n1,2"}),
        (("callbacks", "EpochRecord"), {"most_images": 1, "images": 0, "rows": "step\n1"}),
        (("callbacks", "Checkpoints"), {"best_epoch": 1, "best_metrics": "x"}),
        (("loops",), {}),
        (("lr_schedulers",), None),
        (("pytorch-lightning_version",), "x"),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    execute: Execute, finished: Path, keys: tuple[str, ...], value: Any
) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    holder = saved
    for key in keys[:-1]:
        holder = holder[key]
    assert keys[-1] in holder
    holder[keys[-1]] = value
    torch.save(saved, last)
    with pytest.raises(
        UserError, match=f"^{last} contains a state that does not fit this run: .*new run$"
    ):
        execute(*LINEAR, "trainer.max_epochs=3", f"resume={finished}", folder=finished)
    assert not (finished / "traceback.txt").exists()


def test_an_attempt_that_fails_later_keeps_the_results_and_adds_its_error(
    execute: Execute, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished
    before = json.loads((folder / "summary.json").read_text())

    def fail(self: StopOnSignal, *_: Any) -> None:
        raise RuntimeError("the third epoch fails")

    monkeypatch.setattr(StopOnSignal, "on_train_epoch_start", fail)
    with pytest.raises(CrashError):
        execute(*LINEAR, "trainer.max_epochs=3", f"resume={folder}", folder=folder)
    after = json.loads((folder / "summary.json").read_text())
    assert after["status"] == "failed"
    assert "the third epoch fails" in after["error"]
    for name in ("metrics", "best_epoch", "epochs", "majority_acc", "model", "images_per_second"):
        assert after[name] == before[name], name


def test_measurements_of_a_former_best_do_not_stand_beside_a_new_one(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = execute(*LINEAR, "trainer.max_epochs=1", "optimizer.lr=0.01")

    def stop(self: StopOnSignal, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 4:
            raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(StopOnSignal, "on_train_epoch_start", stop)
    with pytest.raises(Interrupted):
        execute(*LINEAR, "trainer.max_epochs=9", f"resume={folder}", folder=folder)
    after = json.loads((folder / "summary.json").read_text())
    assert after["best_epoch"] > 1
    assert "test/acc" not in after["metrics"]
    assert after["majority_acc"] is None


# Damaged ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b'{"metrics": 3, "seconds": "x"}',
     b'{"seconds": 1' + 400 * b"0" + b', "metrics": {"val/acc": []}}', b'{"seconds": NaN}'],
    ids=["empty", "half", "bytes", "deep", "a list", "other types", "400 digits", "NaN"],
)  # fmt: skip
def test_a_damaged_summary_does_not_stop_a_resume(
    execute: Execute, finished: Path, content: bytes
) -> None:
    (finished / "summary.json").write_bytes(content)
    execute(*LINEAR, "trainer.max_epochs=3", f"resume={finished}", folder=finished)
    after = json.loads((finished / "summary.json").read_text())
    assert after["epochs"] == 3
    assert 0 < after["seconds"] < 1000


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\xff\xfe\0", b"epoch\nx\n", b'"' + 200_000 * b"a"],
    ids=["gone", "empty", "bytes", "a word", "a long cell"],
)
def test_metrics_csv_is_written_anew_whatever_happened_to_it(
    execute: Execute, finished: Path, content: bytes | None
) -> None:
    path = finished / "metrics.csv"
    before = path.read_text().splitlines()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    execute(*LINEAR, "trainer.max_epochs=3", f"resume={finished}", folder=finished)
    after = path.read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


def test_an_epoch_adds_its_row_to_metrics_csv_and_writes_no_other(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, an epoch would take the longer the more epochs came before it."""
    written: list[str] = []

    def row_of(self: EpochRecord, row: dict[str, Any]) -> str:
        written.append(row["epoch"])
        return original(self, row)

    def whole(path: Path, text: str, **options: Any) -> None:
        written.append("whole file")
        write_text(path, text, **options)

    original = EpochRecord._line
    monkeypatch.setattr(EpochRecord, "_line", row_of)
    monkeypatch.setattr("glimpse.callbacks.epoch_record.write_text", whole)
    folder = execute(*LINEAR, "trainer.max_epochs=4")
    assert written == [1, "whole file", 2, 3, 4]
    rows = read_rows(folder, "metrics.csv")[1]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["callbacks"]["EpochRecord"]["rows"].encode() == (
        (folder / "metrics.csv").read_bytes()
    )


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1]])
def test_a_damaged_last_checkpoint_is_replaced_even_where_nothing_is_left_to_train(
    execute: Execute, finished: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    last, best = (finished / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    last.write_bytes(damage(last.read_bytes()))
    is_done = torch.load(best, weights_only=True)["epoch"] == 1
    execute(*LINEAR, f"resume={finished}", folder=finished)
    assert f"{last} is not a checkpoint, or it is damaged; resuming from best" in (
        capsys.readouterr().out
    )
    assert is_intact(last)
    assert not is_done or last.read_bytes() == best.read_bytes()


@pytest.mark.parametrize("kind", ["cut", "pipe", "folder", "link", "missing"])
def test_without_a_best_checkpoint_the_last_weights_are_measured(
    execute: Execute, finished: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    content = best.read_bytes()
    best.unlink()
    if kind == "cut":
        best.write_bytes(content[:-9])
    elif kind == "pipe":
        os.mkfifo(best)
    elif kind == "folder":
        best.mkdir()
    elif kind == "link":
        (tmp_path / "elsewhere.ckpt").write_bytes(content)
        best.symlink_to(tmp_path / "elsewhere.ckpt")
    execute(*LINEAR, f"resume={finished}", folder=finished)
    assert re.search(
        f"^{best}, of epoch [12], is missing or damaged: ", capsys.readouterr().out, re.M
    )
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["best_epoch"] is None
    of_last = TrainedRun(finished / "checkpoints" / "last.ckpt")
    for split in ("train", "val", "test"):
        found = (of_last.predict(split).predicted == of_last.data.labels(split)).mean()
        assert summary["metrics"][f"{split}/acc"] == pytest.approx(found)


@pytest.mark.parametrize("is_gone", [True, False])
def test_the_file_of_epochs_of_a_finished_run_is_written_anew(
    execute: Execute, finished: Path, is_gone: bool
) -> None:
    path = finished / "metrics.csv"
    content = path.read_text()
    if is_gone:
        path.unlink()
    else:
        path.write_text("garbage")
    execute(*LINEAR, f"resume={finished}", folder=finished)
    assert path.read_text() == content


def test_a_setting_that_an_edit_would_change_is_found(finished: Path) -> None:
    record = finished / ".hydra" / "config.yaml"
    place = [f"resume={finished}", f"hydra.run.dir={finished}"]
    config, _ = composed(*LINEAR, "optimizer.lr=0.001")
    record.parent.mkdir(exist_ok=True)
    record.write_text(OmegaConf.to_yaml(config))
    same = OmegaConf.to_yaml(config)
    assert edited_settings(finished, [*LINEAR, *place], same) == {}
    record.write_text(same.replace("lr: 0.001", "lr: 0.5"))
    words = [*LINEAR, *place]
    assert edited_settings(finished, words, same) == {"optimizer.lr": ("0.5", "0.001")}
    for typed in ("optimizer.lr=0.001", "optimizer=adamw"):
        assert edited_settings(finished, [*words, typed], same) == {}


def test_after_a_lost_best_checkpoint_the_next_validation_is_the_best(
    execute: Execute, finished: Path
) -> None:
    (finished / "checkpoints" / "best.ckpt").unlink()
    execute(*LINEAR, f"resume={finished}", "trainer.max_epochs=4", folder=finished)
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["best_epoch"] in (3, 4)
    row = read_rows(finished, "metrics.csv")[1][summary["best_epoch"] - 1]
    assert summary["metrics"]["val/acc"] == pytest.approx(float(row["val/acc"]))


def test_checkpoints_that_are_no_folder_are_named(execute: Execute, finished: Path) -> None:
    folder = finished / "checkpoints"
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.raises(UserError, match=f"^{folder} is not a folder: remove it"):
        execute(*LINEAR, f"resume={finished}", folder=finished)


def test_what_a_killed_process_was_writing_is_removed(execute: Execute, finished: Path) -> None:
    for name in (".summary.partial.json", "checkpoints/.best.partial.ckpt"):
        (finished / name).write_bytes(b"half")
    execute(*LINEAR, f"resume={finished}", folder=finished)
    assert not list(finished.rglob("*.partial*"))


def test_a_finished_run_that_stopped_early_trains_no_more(execute: Execute) -> None:
    options = (
        *LINEAR, "callbacks=[early_stopping]", "callbacks.early_stopping.patience=1",
        "optimizer.lr=0", "trainer.max_epochs=9",
    )  # fmt: skip
    folder = execute(*options)
    rows = (folder / "metrics.csv").read_text()
    execute(*options, f"resume={folder}", folder=folder)
    assert (folder / "metrics.csv").read_text() == rows
    more = (*options, "trainer.max_epochs=10")  # asked for more, it goes on
    execute(*more, f"resume={folder}", folder=folder)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 4


def test_a_finished_run_tells_its_loggers_nothing_more(execute: Execute) -> None:
    options = (*LINEAR, "logger=[tensorboard,csv]", "callbacks.pictures.every_n_epochs=1")
    folder = execute(*options, curves=True)
    files = [path for name in ("tensorboard", "csv") for path in (folder / name).iterdir()]
    before = {path: path.read_bytes() for path in files}
    shown = curves(folder)
    execute(*options, f"resume={folder}", folder=folder, curves=True)
    now = [path for name in ("tensorboard", "csv") for path in (folder / name).iterdir()]
    assert {path: path.read_bytes() for path in now} == before
    # With other settings there is something to tell, and it takes the place of what was told.
    execute(*options, "test=val", f"resume={folder}", folder=folder, curves=True)
    again = curves(folder)
    assert again.pop("config/text_summary") == [0, 34]
    assert set(shown) - set(again) == {"config/text_summary", "final/train/acc", "final/train/loss"}
    assert all(again[name] == shown[name] for name in again)


def test_the_clock_may_be_set_back_before_a_resume(execute: Execute) -> None:
    options = (*LINEAR, "logger=tensorboard")
    folder = execute(*options)
    for path in (folder / "tensorboard").glob("events*"):  # as if an hour had not come yet
        date = path.name.split(".")[3]
        path.rename(path.with_name(path.name.replace(date, str(int(date) + 3600))))
    execute(*options, "trainer.max_epochs=3", f"resume={folder}", folder=folder)
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    assert [step + 1 for step, _ in curves(folder)["val/acc"]] == [
        int(row.split(",")[1]) for row in rows
    ]
    assert len(rows) == 3


def test_files_of_the_second_of_a_resume_are_dated_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard ends their names with a counter, and would read file 10 before file 9."""
    now = 1_700_000_000
    monkeypatch.setattr(building, "time", SimpleNamespace(time=lambda: now + 0.5))
    for date, number in ((now - 5, 8), (now, 9)):
        (tmp_path / f"events.out.tfevents.{date}.host.1.{number}").touch()
    building._date_back(tmp_path)
    dates = sorted(int(path.name.split(".")[3]) for path in tmp_path.iterdir())
    assert dates == [now - 5, now - 1]


def test_the_clock_may_be_set_back_during_a_run(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*LINEAR, "logger=tensorboard")
    folder = execute(*options)
    now = time.time

    def clock() -> float:
        is_late = (folder / "metrics.csv").read_text().count("\n") > 3  # after the third epoch
        return now() - 3600 * is_late

    monkeypatch.setattr(time, "time", clock)
    execute(*options, "trainer.max_epochs=4", f"resume={folder}", folder=folder)
    assert clock() < now()
    found = curves(folder)
    assert len(found["val/acc"]) == 4
    assert found["final/val/acc"] == [(found["val/acc"][-1][0] + 1, pytest.approx(0.5, abs=0.5))]
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 < summary["seconds"] < 600
    assert all(0 < float(row["seconds"]) < 600 for row in read_rows(folder, "metrics.csv")[1])
    assert read_run(folder).status == "finished"


# How much of the training set is measured ---------------------------------------------------------


def num_scored(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many images each split's final measurement scores."""
    found: dict[str, int] = {}
    finish = Counts.finish

    def noted(self: Counts, split: str) -> dict[str, float]:
        metrics = finish(self, split)
        found[split] = self.num_scored[split]
        return metrics

    monkeypatch.setattr(Counts, "finish", noted)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), 1077),
        (("trainer.limit_train_batches=3",), 192),
        (("trainer.limit_train_batches=0.25",), 256),
        (("trainer.max_steps=2",), 128),
        (("trainer.overfit_batches=1",), 64),
    ],
)
def test_no_more_is_measured_than_was_trained_on(
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    expected: int,
) -> None:
    found = num_scored(monkeypatch)
    execute(*LINEAR, *options)
    assert found["train"] == expected
    assert (f"on {expected:,} of 1,077 images" in capsys.readouterr().out) == (expected < 1077)


def test_the_training_set_can_be_left_out(execute: Execute) -> None:
    folder = execute(*LINEAR, "test=val")
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert "train/acc" not in metrics
    assert {"val/acc", "test/acc"} <= set(metrics)


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [
        (".lock", True),
        ("metrics.csv", True),
        ("summary.json", True),
        ("checkpoints/last.ckpt", True),
        ("tensorboard", False),
    ],
)
def test_what_has_the_place_of_a_file_or_folder_of_the_run_is_named(
    execute: Execute, tmp_path: Path, name: str, is_folder: bool
) -> None:
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.mkdir() if is_folder else place.touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=re.escape(str(place)) + " is .*move it elsewhere"):
        execute(*SMALL, "logger=tensorboard", f"resume={tmp_path}", folder=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [math.nan, slow(math.inf)])
def test_weights_that_are_not_finite_are_named_before_training(
    execute: Execute, tmp_path: Path, number: float
) -> None:
    execute(*SMALL, "trainer.max_epochs=1", folder=tmp_path)
    path = tmp_path / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["state_dict"]["network.classifier.8.bias"][1] = number
    AtomicCheckpointIO().save_checkpoint(saved, path)
    with pytest.raises(UserError, match=r"last.ckpt: the weights classifier.8.bias are not finite"):
        execute(*SMALL, f"resume={tmp_path}", folder=tmp_path)
    path.unlink()  # as the message says
    execute(*SMALL, f"resume={tmp_path}", folder=tmp_path)
