"""The moving average of the weights: what is validated, kept and tested; resume; other callbacks."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Execute, composed, slow
from glimpse.assembly import build_classifier, build_data
from glimpse.callbacks.ema import WeightAverage
from glimpse.classifier import ImageClassifier
from glimpse.config.build import build
from glimpse.errors import Interrupted, UserError
from glimpse.models.mlp import MLP
from test_resume import SMALL, stop_at

EMA = (*SMALL, "callbacks=[ema]")


def load(folder: Path, name: str = "last") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(
        folder / "checkpoints" / f"{name}.ckpt", weights_only=True
    )
    return checkpoint


def metrics(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "summary.json").read_text())["metrics"]
    return found


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def measured(weights: dict[str, Tensor], split: str, *overrides: str) -> tuple[float, float]:
    """Loss and accuracy of weights on a split, without a trainer."""
    config, _ = composed(*overrides)
    data = build_data(config)
    classifier = build_classifier(config, build("model", config.model, data.spec), data).eval()
    classifier.load_state_dict(weights)
    batches = [data.batches.to_network(batch) for batch in data.batches.loader(split)]
    with torch.no_grad():
        logits = torch.cat([classifier(batch.images) for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    right = (logits.argmax(1) == labels).double().mean().item()
    return classifier.loss(logits, labels).item(), right


@pytest.mark.parametrize(
    ("options", "num_steps"),
    [
        ((), 21),
        (("trainer.accumulate_grad_batches=2",), 12),
        (("trainer.precision=bf16-true",), 21),  # the average is finer than bf16
    ],
)
def test_the_average_is_of_every_step_and_does_not_touch_the_training(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    num_steps: int,
) -> None:
    seen: dict[int, dict[str, Tensor]] = {}
    original = WeightAverage.on_step_ahead

    def spy(self: WeightAverage, trainer: Any, pl_module: Any) -> None:
        note(trainer.global_step, pl_module)
        original(self, trainer, pl_module)

    def begin(self: ImageClassifier) -> None:
        note(0, self)
        start(self)

    def note(step: int, module: Any) -> None:
        seen.setdefault(step, {n: v.clone() for n, v in module.state_dict().items()})

    start = ImageClassifier.on_train_epoch_start
    monkeypatch.setattr(WeightAverage, "on_step_ahead", spy)
    monkeypatch.setattr(ImageClassifier, "on_train_epoch_start", begin)
    checkpoint = load(execute(*EMA, *options, "callbacks.ema.decay=0.6"))
    plain = load(execute(*SMALL, *options, folder=tmp_path / "plain"))
    assert_equal(checkpoint["training_weights"], plain["state_dict"])
    assert max(seen) == num_steps
    for name, average in seen[0].items():
        if not average.is_floating_point():
            assert checkpoint["state_dict"][name] == seen[num_steps][name]
            continue
        average = average.double()
        for step in range(1, num_steps + 1):
            decay = min(0.6, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * seen[step][name].double()
        found = checkpoint["state_dict"][name].double()
        torch.testing.assert_close(found, average, rtol=1e-5, atol=1e-6)


def extend_mlp(monkeypatch: pytest.MonkeyPatch, extend: Callable[[MLP], None]) -> None:
    """Change each MLP at the end of its constructor."""
    original = MLP.__init__

    @functools.wraps(original)
    def extended(self: MLP, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        extend(self)

    monkeypatch.setattr(MLP, "__init__", extended)


def test_weights_with_two_names_have_one_average(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tie_layers(network: MLP) -> None:
        first, second = [m for m in network.modules() if getattr(m, "in_features", 0) == 16][:2]
        second.weight = first.weight

    extend_mlp(monkeypatch, tie_layers)
    options = (*SMALL[:5], "model=mlp", "model.widths=[16,16,16]", *SMALL[8:])
    plain = load(execute(*options, folder=tmp_path / "plain"))["state_dict"]
    averaged = load(execute(*options, "callbacks=[ema]", folder=tmp_path / "ema"))
    assert_equal(averaged["training_weights"], plain)
    weight, other = (name for name, tensor in plain.items() if tensor.shape == (16, 16))
    assert not torch.equal(averaged["state_dict"][weight], plain[weight])
    assert torch.equal(averaged["state_dict"][weight], averaged["state_dict"][other])


def test_a_buffer_that_is_a_view_of_another_keeps_its_own_values(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    square = torch.arange(9.0).view(3, 3)

    def add_views(network: MLP) -> None:
        network.register_buffer("square", square.clone())
        network.register_buffer("turned", network.square.t())
        network.register_buffer("start", network.square[0, :2])

    extend_mlp(monkeypatch, add_views)
    found = load(execute(*SMALL[:5], "model=mlp", *SMALL[8:], "callbacks=[ema]"))["state_dict"]
    assert torch.equal(found["network.square"], square)
    assert torch.equal(found["network.turned"], square.t())
    assert torch.equal(found["network.start"], square[0, :2])


@pytest.mark.parametrize("max_epochs", [1, 3])  # the first validation is of the average, too
def test_best_checkpoint_is_what_was_validated_and_tested(
    execute: Execute, tmp_path: Path, max_epochs: int
) -> None:
    options = (*EMA, "optimizer.lr=0.03", f"trainer.max_epochs={max_epochs}")
    folder = execute(*options)
    best = load(folder, "best")
    found = metrics(folder)
    for split in ("val", "test"):
        loss, accuracy = measured(best["state_dict"], split, *options)
        assert found[f"{split}/acc"] == pytest.approx(accuracy)
        assert found[f"{split}/loss"] == pytest.approx(loss, rel=1e-5)
    training_loss, _ = measured(best["training_weights"], "val", *options)
    assert training_loss != pytest.approx(found["val/loss"], rel=1e-3)


def test_without_validation_the_average_is_tested(execute: Execute) -> None:
    folder = execute(*EMA, "trainer.limit_val_batches=0")
    loss, _ = measured(load(folder)["state_dict"], "test", *EMA)
    assert metrics(folder)["test/loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    ("hook", "epoch", "batch"),
    [
        slow("on_train_batch_end", 0, 0),
        ("on_train_batch_end", 1, 2),
        ("on_validation_batch_end", 1, 1),
        slow("on_validation_batch_end", 2, 2),
    ],
)
def test_stopped_and_resumed_equals_unbroken(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hook: str,
    epoch: int,
    batch: int,
) -> None:
    unbroken = execute(*EMA, folder=tmp_path / "unbroken")
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, hook, epoch, batch)
        with pytest.raises(Interrupted):
            execute(*EMA, folder=stopped)
    execute(*EMA, f"resume={stopped}", folder=stopped)
    for name in ("last", "best"):
        first, second = load(unbroken, name), load(stopped, name)
        for weights in ("state_dict", "training_weights"):
            assert_equal(first[weights], second[weights])
    assert metrics(unbroken) == metrics(stopped)


def test_a_finished_run_is_extended(execute: Execute, tmp_path: Path) -> None:
    options = (*EMA, "scheduler=constant")
    whole = execute(*options, folder=tmp_path / "whole")
    folder = execute(*options, "trainer.max_epochs=2")
    execute(*options, f"resume={folder}", folder=folder)
    for weights in ("state_dict", "training_weights"):
        assert_equal(load(whole)[weights], load(folder)[weights])
    execute(*options, f"resume={folder}", folder=folder)  # nothing left to train
    assert metrics(folder) == metrics(whole)


def test_the_average_cannot_be_left_out_of_a_resumed_run_but_may_join_it(execute: Execute) -> None:
    folder = execute(*SMALL)
    execute(*EMA, "trainer.max_epochs=4", f"resume={folder}", folder=folder)
    assert "training_weights" in load(folder)
    with pytest.raises(UserError, match="keep ema in callbacks"):
        execute(*SMALL, "trainer.max_epochs=5", f"resume={folder}", folder=folder)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_with_a_compiled_network(execute: Execute, tmp_path: Path) -> None:
    options = ("callbacks=[ema]", "data=synthetic", "data.shape=[1,8,8]", "model=linear")
    batches = (
        "data.batch_size=64",
        "data.num_train=128",
        "data.num_val=64",
    )  # of one size: it compiles each
    short = (*options, *batches, "trainer=cpu", "trainer.max_epochs=1", "logger=none", "test=false")
    plain = load(execute(*short, folder=tmp_path / "plain"))
    compiled = load(execute(*short, "compile=true", folder=tmp_path / "compiled"))
    for kind in ("state_dict", "training_weights"):
        for name, value in plain[kind].items():
            torch.testing.assert_close(compiled[kind].pop(name), value, rtol=1e-3, atol=1e-5)
        assert not compiled[kind]


@pytest.mark.gpu
def test_on_a_gpu(execute: Execute) -> None:
    options = (*EMA, "trainer=gpu")
    folder = execute(*options)
    execute(*options, "trainer.max_epochs=4", f"resume={folder}", folder=folder)
    loss, _ = measured(load(folder, "best")["state_dict"], "val", *options)
    assert metrics(folder)["val/loss"] == pytest.approx(loss, rel=1e-2)
