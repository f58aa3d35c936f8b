"""Fine-tuning: what is frozen when, at which rates, and the same after a resume."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torchvision

from conftest import Execute, choices, slow
from glimpse import steps_ahead
from glimpse.callbacks.finetune import GROUPS, Finetune
from glimpse.callbacks.stop_on_signal import StopOnSignal
from glimpse.errors import Interrupted, UserError

ARCHITECTURE = "shufflenet_v2_x0_5"
SMALL = (
    "data=synthetic", "data.shape=[3,32,32]", "data.num_train=40", "data.num_val=20",
    "data.num_classes=3", "data.batch_size=8", "trainer=cpu", "trainer.precision=32-true", "logger=none",
    "model=pretrained", f"model.architecture={ARCHITECTURE}", "test=false",
)  # fmt: skip
FINETUNE = (*SMALL, "callbacks=[finetune]", "trainer.max_epochs=3")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights, as if published."""
    path = tmp_path_factory.mktemp("weights") / "shufflenet.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model(ARCHITECTURE, weights=None).state_dict(), path)
    return f"model.weights={path}"


def state(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    found: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return found


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    "optimizer", [o if o in ("adamw", "muon") else slow(o) for o in choices("optimizer")]
)
def test_only_the_head_moves_and_then_all(
    execute: Execute, weights: str, tmp_path: Path, optimizer: str
) -> None:
    decay = (f"optimizer={optimizer}", "optimizer.weight_decay=0.1", "optimizer.lr=0.01")
    options = (*FINETUNE, weights, *decay)
    published = torch.load(weights.partition("=")[2], weights_only=True)
    start = {f"network.backbone.{k}": v for k, v in published.items() if not k.startswith("fc.")}
    frozen = state(execute(*options, "trainer.max_epochs=1", folder=tmp_path / "frozen"))
    assert not moved(start, frozen)
    assert frozen["network.head.weight"].any()
    whole = state(execute(*options, "trainer.max_epochs=2", folder=tmp_path / "whole"))
    assert set(start) - moved(start, whole) == {n for n in start if "running" in n or "num_" in n}


def test_statistics_move_where_asked(execute: Execute, weights: str) -> None:
    folder = execute(*FINETUNE, weights, "callbacks.finetune.move_statistics=true")
    name = "backbone.conv1.1.num_batches_tracked"
    assert state(folder)[f"network.{name}"] == 2 * 5  # batches of the epochs after the first


@pytest.mark.parametrize(("frozen_epochs", "phases"), [(1, {True}), (0, {False})])
def test_the_rate_finder_stays_in_the_first_phase(
    execute: Execute,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    frozen_epochs: int,
    phases: set[bool],
) -> None:
    seen: list[bool | None] = []
    original = Finetune.on_train_batch_start

    def note(self: Finetune, trainer: pl.Trainer, *rest: Any) -> None:
        original(self, trainer, *rest)
        seen.append(self._frozen)

    monkeypatch.setattr(Finetune, "on_train_batch_start", note)
    epochs = f"callbacks.finetune.frozen_epochs={frozen_epochs}"
    execute(*FINETUNE, weights, epochs, "task=lr_find", "lr_find.num_steps=20", "lr_find.end=1e-3")
    assert len(seen) == 20  # in four epochs
    assert set(seen) == phases


@pytest.mark.parametrize(
    "scheduler", [s if s in ("onecycle", "plateau") else slow(s) for s in choices("scheduler")]
)
def test_rates_rise_with_depth_and_follow_the_schedule(
    execute: Execute,
    weights: str,
    one_by_one: None,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
) -> None:
    seen: list[list[float]] = []
    original = Finetune.on_train_batch_start

    def note(self: Finetune, trainer: pl.Trainer, *rest: Any) -> None:
        original(self, trainer, *rest)
        seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    monkeypatch.setattr(Finetune, "on_train_batch_start", note)
    more = (
        "optimizer.decay_all=true",
        "callbacks.finetune.depth_factor=0.001",
        "callbacks.finetune.backbone_factor=0.1",
    )
    execute(*FINETUNE, weights, f"scheduler={scheduler}", *more)
    assert len(seen) == 15
    for rates in seen:
        factors = [rate / rates[0] for rate in rates]
        assert factors == pytest.approx([1.0, *(10.0**-i for i in range(1, GROUPS + 1))])


def stop_after(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    original: Callable[..., None] = StopOnSignal.on_train_batch_end

    def with_signal(self: StopOnSignal, trainer: pl.Trainer, *rest: Any) -> None:
        if (trainer.current_epoch, rest[3]) == (epoch, batch):
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, *rest)

    monkeypatch.setattr(StopOnSignal, "on_train_batch_end", with_signal)
    monkeypatch.setattr(steps_ahead, "LONGEST_CHUNK", 1)  # or the hook might not see that batch


@pytest.mark.parametrize(("epoch", "batch"), [(0, 2), (1, 1)])
def test_stopped_and_resumed_equals_unbroken(
    execute: Execute,
    weights: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
    batch: int,
) -> None:
    unbroken = execute(*FINETUNE, weights, folder=tmp_path / "unbroken")
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_after(patch, epoch, batch)
        with pytest.raises(Interrupted):
            execute(*FINETUNE, weights, folder=stopped)
    execute(*FINETUNE, weights, f"resume={stopped}", folder=stopped)
    assert not moved(state(unbroken), state(stopped))


@pytest.mark.parametrize("callback", ["finetune", "frozen_features"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("model=convnet",), "this model has none"),
        (("model=pretrained", "model.weights=none"), "model.weights=none has none"),
    ],
)
def test_without_pretrained_weights_it_is_refused(
    execute: Execute, callback: str, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=f"freezes layers.*{message}.*type model=pretrained"):
        execute("data=digits", "trainer=cpu", *options, f"callbacks=[{callback}]")


def test_a_resumed_run_keeps_it(execute: Execute, weights: str) -> None:
    folder = execute(*FINETUNE, weights, "trainer.max_epochs=2")
    with pytest.raises(UserError, match="trained with finetune; add finetune to callbacks"):
        execute(
            *FINETUNE, weights, "trainer.max_epochs=4", f"resume={folder}", "callbacks=[]",
            folder=folder,
        )  # fmt: skip
