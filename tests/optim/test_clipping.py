"""Gradients are clipped as asked, with every optimizer in every precision."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from conftest import Execute, choices, composed, slow
from glimpse.classifier import ImageClassifier
from glimpse.optim.clipping import clip_gradients
from glimpse.optim.optimizer import build_optimizer

SMALL = (
    "data=synthetic", "data.shape=[3,8,8]", "data.num_train=64", "data.num_val=32",
    "data.batch_size=8", "trainer=cpu", "trainer.max_steps=3", "trainer.limit_val_batches=0",
    "logger=none", "test=false", "scheduler=constant", "optimizer.lr=0.001",
)  # fmt: skip
CONVNET = ("model=convnet_bn", "model.widths=[4,8]", "model.hidden=8")
# On a CPU Lightning makes bf16-mixed of 16-mixed, whose scaler has a test of its own.
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true", "64-true")
# AdamW's eps is nothing in fp16; only fused ones compute in fp32.
BROKEN = {("muon", "16-true")}
COMBINATIONS = [
    pair for o in choices("optimizer") for p in PRECISIONS if (pair := (o, p)) not in BROKEN
]
ALGORITHMS = ("norm", "value")
LIMITS = {"norm": 0.1, "value": 0.01}
Trained = Callable[..., list[tuple[Tensor, Tensor]]]


@pytest.fixture
def trained(execute: Execute, one_by_one: None, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Train; the gradients of three steps, all as one vector, before they were clipped and after."""
    before: list[Tensor] = []
    after: list[Tensor] = []

    def gradients(classifier: ImageClassifier) -> Tensor:
        found = [p.grad for p in classifier.network.parameters() if p.grad is not None]
        return torch.cat([g.double().flatten() for g in found])

    def note_before(self: ImageClassifier, optimizer: Optimizer) -> None:
        before.append(gradients(self))

    def note_after(self: ImageClassifier, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            after.append(gradients(self))

    monkeypatch.setattr(ImageClassifier, "on_before_optimizer_step", note_before)
    monkeypatch.setattr(ImageClassifier, "on_train_batch_end", note_after)

    def train(algorithm: str, *options: str) -> list[tuple[Tensor, Tensor]]:
        limit = f"trainer.gradient_clip_val={LIMITS[algorithm]}"
        execute(*SMALL, *options, limit, f"trainer.gradient_clip_algorithm={algorithm}")
        assert len(before) == 3
        return list(zip(before, after, strict=True))

    return train


def check_clipped(before: Tensor, after: Tensor, algorithm: str, exactness: float) -> None:
    limit = LIMITS[algorithm]
    if algorithm == "norm":
        assert before.norm() > 2 * limit
        assert after.norm().item() == pytest.approx(limit, rel=exactness)
        expected = before * limit / before.norm()
    else:
        assert before.abs().max() > 2 * limit
        expected = before.clamp(-limit, limit)
    torch.testing.assert_close(after, expected, rtol=exactness, atol=1e-5)


def is_one_of_its_kind(optimizer: str, precision: str, algorithm: str) -> bool:
    """Every precision with one fused optimizer, and every optimizer where Lightning clips for nobody."""
    if optimizer == "adam":
        return algorithm == "norm" or precision in ("32-true", "bf16-mixed")
    return precision == "bf16-mixed"


@pytest.mark.parametrize(
    ("optimizer", "precision", "algorithm"),
    [
        case if is_one_of_its_kind(*case) else slow(*case)
        for combination in COMBINATIONS
        for algorithm in ALGORITHMS
        for case in [(*combination, algorithm)]
    ],
)
def test_every_step_has_the_norm_or_the_size_that_was_asked(
    trained: Trained, optimizer: str, precision: str, algorithm: str
) -> None:
    num_batches = 2 if algorithm == "norm" else 1  # of a step
    steps = trained(
        algorithm, *CONVNET, f"optimizer={optimizer}", f"trainer.precision={precision}",
        f"trainer.accumulate_grad_batches={num_batches}",
    )  # fmt: skip
    for before, after in steps:
        check_clipped(before, after, algorithm, 0.02 if "16-true" in precision else 1e-3)


@pytest.mark.usefixtures("published_weights")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_frozen_parameters_have_no_gradients_to_clip(trained: Trained, algorithm: str) -> None:
    steps = trained(
        algorithm, "data.shape=[3,32,32]", "model=pretrained", "callbacks=[finetune]",
        "trainer.precision=bf16-mixed",
    )  # fmt: skip
    for before, after in steps:
        check_clipped(before, after, algorithm, 1e-3)


@pytest.mark.parametrize("by_value", [False, True])
@pytest.mark.parametrize("name", choices("optimizer"))
def test_a_scaled_loss_is_clipped_as_if_it_were_not(name: str, by_value: bool) -> None:
    config, _ = composed(f"optimizer={name}")
    networks = []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
        optimizer = build_optimizer(network, config.optimizer)
        scaler = GradScaler("cpu", init_scale=scale)
        for _ in range(3):
            optimizer.zero_grad()
            scaler.scale(network(torch.randn(5, 6)).square().sum()).backward()
            if not getattr(optimizer, "_step_supports_amp_scaling", False):
                scaler.unscale_(optimizer)  # Lightning does
            clip_gradients(optimizer, 0.01, by_value=by_value, scaler=scaler)
            found = torch.cat(
                [p.grad.flatten() for p in network.parameters() if p.grad is not None]
            )
            size = found.abs().max() if by_value else found.norm()
            assert size.item() == pytest.approx(0.01, rel=1e-3)
            scaler.step(optimizer)
            scaler.update()
        networks.append(network)
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(one, other)


def test_a_step_with_infinite_gradients_is_left_out_where_the_loss_is_scaled() -> None:
    network = nn.Linear(2, 1)
    before = network.weight.detach().clone()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    scaler = GradScaler("cpu", init_scale=1024.0)
    scaler.scale(network(torch.tensor([[torch.inf, 1.0]])).sum()).backward()
    clip_gradients(optimizer, 1.0, by_value=False, scaler=scaler)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(network.weight, before)
    assert scaler.get_scale() == 512


def test_the_norm_of_fp16_gradients_does_not_overflow() -> None:
    parameter = nn.Parameter(torch.zeros(1000, dtype=torch.float16))
    parameter.grad = torch.full_like(parameter, 6e4)
    clip_gradients(torch.optim.SGD([parameter]), 1.0, by_value=False)
    assert parameter.grad.float().norm().item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("by_value", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_limit_beyond_all_gradients_changes_nothing(dtype: torch.dtype, by_value: bool) -> None:
    parameters = [nn.Parameter(torch.zeros(5, dtype=dtype)) for _ in range(3)]
    found = [torch.randn(5, dtype=dtype), torch.full((5,), 6e4, dtype=dtype)]
    for parameter, gradient in zip(parameters, found, strict=False):  # the last one has none
        parameter.grad = gradient.clone()
    clip_gradients(torch.optim.SGD(parameters), 1e9, by_value=by_value)
    for parameter, gradient in zip(parameters, found, strict=False):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)
