"""No step of a training makes a GPU wait, from the loader to the last callback.

On a CPU the tests take the way of a GPU, and notice what would make one wait; see queueing.py.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from conftest import Execute, choices, slow
from glimpse import steps_ahead
from glimpse.callbacks.epoch_record import EpochRecord
from glimpse.callbacks.hard_examples import HardExamples
from glimpse.classifier import ImageClassifier, exact_loss
from glimpse.crash import CrashError
from glimpse.data.loader import Batch
from glimpse.errors import DivergedError
from glimpse.lightning_compat import callbacks_of
from queueing import on_a_cpu, on_a_gpu

ON_EACH_DEVICE = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
)
SMALL = (
    "data=synthetic", "data.shape=[3,16,16]", "data.num_train=96", "data.num_val=16",
    "data.batch_size=16", "model=convnet_small", "model.widths=[8,16]", "trainer.max_epochs=2",
    "logger=none", "test=false",
)  # fmt: skip
QUEUED = ("glimpse.loss_watch", "glimpse.optim.muon", "glimpse.data.augment.trivial")


@pytest.fixture
def watched(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """All batches but the first of an epoch raise an error if they would wait; the numbers of the batches
    that were watched. A chunk is as long as it can be."""
    if device == "cpu":
        for module in QUEUED:
            monkeypatch.setattr(f"{module}.is_queued", lambda _device: True)
    monkeypatch.setattr(steps_ahead, "chunk_length", lambda seconds, last: 1000)
    watching = ExitStack()
    seen: list[int] = []

    def after_a_batch(self: EpochRecord, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.is_last_batch:
            watching.close()
        original_end(self, trainer, *rest)
        if rest[-1] == 0:
            watching.enter_context(on_the_device(trainer))

    def step(self: ImageClassifier, batch: Batch, batch_idx: int) -> torch.Tensor:
        if batch_idx:
            seen.append(batch_idx)
        return original_step(self, batch, batch_idx)

    def on_the_device(trainer: pl.Trainer) -> AbstractContextManager[None]:
        if device == "gpu":
            return on_a_gpu()
        proxies = [c.optimizer for c in callbacks_of(trainer) if isinstance(c, HardExamples)]
        states = [s for opt in (*trainer.optimizers, *proxies) if opt for s in opt.state.values()]
        # Unless it is fused, Adam counts its steps on the CPU.
        return on_a_cpu(lambda value: any(value is state.get("step") for state in states))

    original_end, original_step = EpochRecord.on_train_batch_end, ImageClassifier.training_step
    monkeypatch.setattr(EpochRecord, "on_train_batch_end", after_a_batch)
    monkeypatch.setattr(ImageClassifier, "training_step", step)
    with watching:
        yield seen


def cases() -> Iterator[Any]:
    """Each choice of each group in some run: the short groups again and again beside the long ones."""
    augments = [choice for choice in choices("augment") if choice != "none"]
    others = {
        group: [f"{group}={choice}" for choice in choices(group)]
        for group in ("optimizer", "loss", "scheduler")
    }
    for number, augment in enumerate(augments):
        options = [of[number % len(of)] for of in others.values()]
        yield (f"augment={augment}", *options)
    yield ("augment=[crop_flip,cutmix,colour_jitter]", "optimizer=muon", "callbacks=[ema]")
    yield ("data.sampling=balanced", "loss.class_weights=balanced", "data.num_classes=3")
    yield ("trainer.gradient_clip_val=0.1", "callbacks=[progressive_sizes]", "trainer.max_epochs=3")
    yield ("callbacks=[hard_examples]", "optimizer=muon")
    yield ("trainer.accumulate_grad_batches=2", "optimizer.decay_all=false", "optimizer=adamw")
    by_value = ("trainer.gradient_clip_val=0.1", "trainer.gradient_clip_algorithm=value")
    yield slow((*by_value, "model=resnet20", "model.widths=[8,8,8]"))
    yield slow(("callbacks=[early_stopping]", "model=whitened_net", "optimizer=muon"))
    yield slow(("callbacks=[time_limit]", "trainer.precision=bf16-mixed", "model=convnet_bn"))


@ON_EACH_DEVICE
@pytest.mark.parametrize("options", list(cases()), ids=lambda options: options[0])
def test_no_step_waits(
    execute: Execute, watched: list[int], device: str, options: tuple[str, ...]
) -> None:
    execute(*SMALL, *options, f"trainer={device}")
    assert watched[:5] == [1, 2, 3, 4, 5]


@ON_EACH_DEVICE
@pytest.mark.usefixtures("published_weights")
@pytest.mark.parametrize("callbacks", ["finetune", slow("frozen_features")])
def test_no_step_of_a_pretrained_network_waits(
    execute: Execute, watched: list[int], device: str, callbacks: str
) -> None:
    options = [option for option in SMALL if not option.startswith("model")]
    options += ["model=pretrained", "model.architecture=shufflenet_v2_x0_5", "augment=none"]
    execute(*options, "data.shape=[3,32,32]", f"callbacks=[{callbacks}]", f"trainer={device}")
    assert watched[:5] == [1, 2, 3, 4, 5]


@ON_EACH_DEVICE
def test_a_step_that_waits_is_noticed(
    execute: Execute, watched: list[int], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(loss: nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return exact_loss(loss, logits.clamp_max(50) if logits.max() > 50 else logits, labels)

    monkeypatch.setattr("glimpse.classifier.exact_loss", waits)
    with pytest.raises(CrashError, match=r"makes a GPU wait|synchroniz"):
        execute(*SMALL, f"trainer={device}")
    assert watched == [1]


@ON_EACH_DEVICE
@pytest.mark.parametrize("batch", [2, 4, 6])
def test_the_step_that_failed_is_named(
    execute: Execute, device: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is noticed later, with the next losses or at the end of the epoch."""
    monkeypatch.setattr("glimpse.loss_watch.CHECK_EVERY", 2)
    monkeypatch.setattr("glimpse.loss_watch.is_queued", lambda _device: True)
    numbers = iter(range(1, 100))

    def breaks(*given: Any) -> torch.Tensor:
        loss = exact_loss(*given)
        return loss * float("nan") if next(numbers) == batch else loss

    monkeypatch.setattr("glimpse.classifier.exact_loss", breaks)
    with pytest.raises(DivergedError, match=f"train/loss at epoch 1, batch {batch} is nan"):
        execute(*SMALL, f"trainer={device}")
