"""The learning-rate finder: its suggestions are sensible, and it leaves everything as it was."""

import copy
import csv
import itertools
import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.distributed import HashStore

from conftest import Execute, choices, composed, slow
from glimpse import lr_find
from glimpse.config.build import plain
from glimpse.distributed.place import Place
from glimpse.distributed.team import Team
from glimpse.errors import Interrupted, UserError
from glimpse.job import choices_of_run
from glimpse.parts import build_parts
from glimpse.summary import Summary

TINY = (
    "task=lr_find", "data=synthetic", "data.shape=[1,8,8]", "data.num_train=60", "data.num_val=30",
    "data.num_classes=6", "data.batch_size=16", "model=linear", "trainer=cpu", "logger=none",
)  # fmt: skip
CONVNET = ("model=convnet_bn", "model.widths=[8,16]", "model.hidden=16")


def read_suggestions(folder: Path) -> dict[str, float]:
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    metrics: dict[str, float] = summary["metrics"]
    return metrics


def read_curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "lr_find.csv").open(newline="") as file:
        return [{name: float(v) for name, v in row.items()} for row in csv.DictReader(file)]


def test_suggestions_of_a_known_curve() -> None:
    rates = np.geomspace(1e-7, 10, 100)
    losses = 1 + 1 / (1 + np.exp(3 * (np.log10(rates) + 3)))  # falls most steeply at 1e-3
    losses += 1e-3 * np.maximum(0, np.log10(rates) + 0.5) ** 2  # lowest near 1e-1
    suggested = lr_find.suggest(rates.tolist(), losses.tolist())
    assert suggested["steepest"] == pytest.approx(1e-3, rel=0.25)
    lowest = rates[losses.argmin()]
    assert suggested["minimum/10"] == pytest.approx(lowest / 10)
    assert 1e-3 < suggested["valley"] < lowest


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([9, 8, 7, 6, 5, 4, 3], 4),
        ([5, 9, 8, 5.5, 7, 6, 8, 5, 9], 5),  # 9 8 7 6 5, from the second to the eighth
        ([1, 2, 3], 0),
    ],
)
def test_valley_is_the_longest_descent(losses: list[float], expected: int) -> None:
    assert lr_find.valley(np.array(losses, float)) == expected


def test_a_run_leaves_curve_picture_and_command(
    execute: Execute, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = tmp_path / "run" / ".hydra"
    recorded.mkdir(parents=True)
    overrides = ["task=lr_find", "data.classes=[a b]", "optimizer.lr=3", "lr_find.num_steps=50"]
    (recorded / "overrides.yaml").write_text("".join(f"- {o}\n" for o in overrides))
    folder = execute(*TINY, "lr_find.num_steps=50", "lr_find.end=1e6", "logger=tensorboard")
    suggested = read_suggestions(folder)
    assert set(suggested) == {"lr_find/minimum/10", "lr_find/steepest", "lr_find/valley"}
    curve = read_curve(folder)
    assert len(curve) > 60 // 16 + 1  # goes on into further epochs
    assert curve[0]["lr"] == pytest.approx(1e-7)
    assert curve[0]["loss"] == curve[0]["smoothed_loss"]
    factors = [after["lr"] / row["lr"] for row, after in itertools.pairwise(curve)]
    assert factors == pytest.approx([1e13 ** (1 / 49)] * len(factors))
    lowest = min(row["smoothed_loss"] for row in curve)
    assert curve[-1]["smoothed_loss"] > 4 * lowest  # here it stopped, before the last rate
    assert len(curve) < 50
    assert (folder / "figures" / "lr_find.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    rate = suggested["lr_find/valley"]
    command = f'python train.py "data.classes=[a b]" optimizer.lr={rate:.2g}'
    assert f"train with: {command}\n" in printed
    for name in ("minimum/10", "steepest", "valley"):
        assert re.search(rf"^{name} +\S+$", printed, re.M)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("lr_find/loss")] == pytest.approx(
        [row["loss"] for row in curve], rel=1e-6
    )
    assert events.Images("lr_find")
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    "optimizer", [o if o in ("adam", "muon") else slow(o) for o in choices("optimizer")]
)
def test_the_suggested_rate_trains(execute: Execute, tmp_path: Path, optimizer: str) -> None:
    options = (*TINY, f"optimizer={optimizer}", "data.num_train=240", "data.normalize=dataset")
    rate = read_suggestions(execute(*options))["lr_find/valley"]
    options = (*options, "task=fit", f"optimizer.lr={rate}", "trainer.max_epochs=6")
    folder = execute(*options, folder=tmp_path / "fit")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"]["test/acc"] > 0.5


@pytest.mark.parametrize(
    "options",
    [
        ("trainer.precision=bf16-mixed", "augment=crop_flip", "data.shape=[3,16,16]"),
        ("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0"),
        ("callbacks=[early_stopping,ema]", "scheduler=plateau"),
        ("callbacks=[progressive_sizes]", "data.shape=[1,16,16]"),
        ("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=4"),
        ("trainer.max_time=00:00:00:00",),
        ("trainer.fast_dev_run=true", "trainer.max_epochs=1", "optimizer=muon"),
    ],
)
def test_with_what_training_composes(execute: Execute, options: tuple[str, ...]) -> None:
    folder = execute(*TINY, *CONVNET, *options, "lr_find.num_steps=20", "lr_find.end=0.1")
    assert len(read_curve(folder)) == 20
    assert all(math.isfinite(rate) for rate in read_suggestions(folder).values())


def test_everything_is_as_it_was_afterwards(tmp_path: Path) -> None:
    config, chosen = composed(*TINY, *CONVNET, "lr_find.num_steps=20", f"data_dir={tmp_path}")
    names = choices_of_run(chosen)
    summary, team = Summary(tmp_path, config, names), Team(Place(), HashStore())
    parts = build_parts(config, plain(config), names, summary, team, judge=None, afterwards="")
    classifier = parts.classifier
    weights, random_state = copy.deepcopy(classifier.state_dict()), torch.get_rng_state()
    lr_find.find(parts)
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert classifier.network.training


def test_groups_keep_their_ratio() -> None:
    network = nn.Linear(2, 2)
    groups = [{"params": [network.weight], "lr": 0.5}, {"params": [network.bias], "lr": 0.05}]
    optimizer = torch.optim.SGD(groups, lr=0.5)
    schedule = lr_find.RangeTest([0.1, 0.2, 0.4]).schedule(0.5)(optimizer, 3).scheduler
    seen = []
    for _ in range(3):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()  # type: ignore[call-arg]
    assert np.array(seen) == pytest.approx(np.array([[0.1, 0.01], [0.2, 0.02], [0.4, 0.04]]))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("optimizer.lr=0", "type one above 0"),
        ("trainer.limit_train_batches=0", "too few steps: the test ended after 0 of 100 steps"),
        ("lr_find.start=1e37", "lower lr_find.start"),
        ("lr_find.start=1e38", "expected less than lr_find.end=1e+38"),
    ],
)
def test_rates_that_leave_no_curve(execute: Execute, option: str, message: str) -> None:
    options = ("optimizer=sgd", "lr_find.end=1e38")
    with pytest.raises(UserError, match=re.escape(message)):
        execute(*TINY, *options, option)


def test_it_resumes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be resumed: remove resume"):
        composed(*TINY, f"resume={tmp_path}")


def test_stopped_by_a_signal(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(number: int, _frame: object) -> None:
        raise Interrupted(number)

    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, stop)  # as launch.main does
    monkeypatch.setattr(lr_find.RangeTest, "on_train_batch_end", kill)
    try:
        with pytest.raises(Interrupted) as stopped:
            execute(*TINY)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.exit_code == 130
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"


def test_the_command_scales_the_rate_of_matrices_too(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    muon = ("optimizer=muon", "optimizer.lr=0.01", "optimizer.matrix_lr=0.2")
    folder = execute(*TINY, *muon, "lr_find.num_steps=40", "lr_find.end=1e6")
    rate = read_suggestions(folder)["lr_find/valley"]
    expected = f"optimizer.lr={rate:.2g} optimizer.matrix_lr={20 * rate:.2g}\n"
    assert expected in capsys.readouterr().out
