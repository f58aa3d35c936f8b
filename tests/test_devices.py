"""A step and an evaluation stay on the device: no tensor of them is made or left on the CPU.

Tensors without content stand for those of a GPU. torch computes their shapes and devices, and refuses
to mix devices, so these tests need no GPU. They leave out the backward pass and all transfers.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from conftest import choices, composed, slow
from glimpse.assembly import build_classifier, build_data
from glimpse.classifier import ImageClassifier
from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule
from glimpse.losses import divisor
from glimpse.network import build_network
from glimpse.optim import muon
from glimpse.optim.clipping import clip_gradients
from glimpse.views import AVERAGES

GPU = torch.device("cuda:0")
SMALL = (
    "data=synthetic", "data.shape=[3,32,32]", "data.num_train=60", "data.num_val=16",
    "data.batch_size=12", "logger=none", "test=false",
)  # fmt: skip
NETWORK = ("model=convnet_small", "model.widths=[8,16]")


def cases() -> Iterator[Any]:
    for model in choices("model"):
        if model != "pretrained":
            yield slow((f"model={model}",))
    for group in ("augment", "loss"):
        for choice in choices(group):
            yield (f"{group}={choice}", *NETWORK)
    for choice in choices("optimizer"):
        yield (f"optimizer={choice}", *NETWORK)
    yield ("augment=[crop_flip,cutmix,colour_jitter]", "optimizer=muon", *NETWORK)
    yield ("loss.class_weights=balanced", "data.num_classes=3", *NETWORK)


@pytest.mark.parametrize("options", list(cases()), ids=lambda options: options[0])
def test_nothing_of_a_step_is_on_another_device(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(muon, "bf16_hardware", lambda _device: "tensor cores")
    # torch has no form of the fused step that computes shapes alone.
    fused = ["optimizer.fused=false"] if options[0] == "optimizer=sgd" else []
    config, _ = composed(*SMALL, *options, *fused)
    data = build_data(config)
    classifier = build_classifier(config, build_network(config.model, data.spec), data)
    batch = next(iter(data.batches.loader("train", training=True)))
    data.batches.lay_out(torch.channels_last)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (classifier.network, classifier.loss, data.batches._preprocess):
            move(module)
        train(classifier, data, on_gpu(batch))
        evaluate(classifier, data, on_gpu(batch))


def move(module: nn.Module) -> None:
    """Replace parameters and buffers by empty ones on the GPU."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=GPU)
                part._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU)


def on_gpu(batch: Batch) -> Batch:
    moved = (torch.empty(t.shape, dtype=t.dtype, device=GPU) for t in batch[:3])
    return Batch(*moved, batch.share)


def train(classifier: ImageClassifier, data: ImageDataModule, batch: Batch) -> None:
    """A step, with gradients from nowhere."""
    classifier.counts.start("train", GPU)
    batch = data.batches.to_network(batch, training=True, epoch=1)
    count(classifier, classifier.network(batch.images), batch, "train")
    for parameter in classifier.network.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    optimizer = classifier.new_optimizer()
    for by_value in (False, True):
        clip_gradients(optimizer, 0.1, by_value=by_value, scaler=None)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    assert {value.device for value in states if value.ndim} <= {GPU}


@torch.no_grad()
def evaluate(classifier: ImageClassifier, data: ImageDataModule, batch: Batch) -> None:
    """A batch of a validation set, with all views."""
    classifier.network.eval()
    classifier.counts.start("val", GPU)
    batch = data.batches.to_network(batch)
    logits = classifier.network(batch.images)
    for average in AVERAGES.values():
        count(classifier, average(classifier.network, batch.images, logits), batch, "val")


def count(classifier: ImageClassifier, logits: Tensor, batch: Batch, split: str) -> None:
    loss = classifier.loss_of(logits, batch.labels)
    classifier.counts.add(
        split,
        loss.detach(),
        logits.detach(),
        batch.labels,
        divisor=divisor(classifier.loss, batch.labels),
    )
    sums = classifier.counts._sums[split].totals
    assert {t.device for t in (batch.images, batch.labels, loss, sums)} == {GPU}
