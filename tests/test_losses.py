"""The losses of the documents, against their definitions."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import Execute, choices, composed, slow
from glimpse.classifier import ImageClassifier
from glimpse.config.build import build
from glimpse.losses import LogSoftmaxNLL, SoftmaxMSE, exact_loss, keep_exact

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], requires_grad=True)
LABELS = torch.tensor([0, 2])


def test_log_softmax_with_nll_is_cross_entropy() -> None:
    torch.testing.assert_close(LogSoftmaxNLL()(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))


def test_squared_error_of_probabilities() -> None:
    expected = ((LOGITS.softmax(1) - torch.eye(3)[LABELS]) ** 2).mean()
    torch.testing.assert_close(SoftmaxMSE()(LOGITS, LABELS), expected)


def test_squared_error_saturates_where_cross_entropy_does_not() -> None:
    wrong = torch.tensor([[20.0, -20.0]], requires_grad=True)  # sure of the wrong class
    label = torch.tensor([1])
    [slow] = torch.autograd.grad(SoftmaxMSE()(wrong, label), wrong)
    [fast] = torch.autograd.grad(F.cross_entropy(wrong, label), wrong)
    assert slow.abs().max() < 1e-6 < 0.9 < fast.abs().max()


@pytest.mark.parametrize("loss", [LogSoftmaxNLL(), SoftmaxMSE(), nn.CrossEntropyLoss()])
def test_certain_probabilities_are_labels(loss: nn.Module) -> None:
    torch.testing.assert_close(loss(LOGITS, torch.eye(3)[LABELS]), loss(LOGITS, LABELS))


def test_log_softmax_with_nll_is_cross_entropy_of_mixed_labels_too() -> None:
    shares = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.1, 0.9]])
    torch.testing.assert_close(LogSoftmaxNLL()(LOGITS, shares), F.cross_entropy(LOGITS, shares))


@pytest.mark.parametrize("loss", choices("loss"))
def test_mixed_images_train_and_count_for_the_larger_share(execute: Execute, loss: str) -> None:
    folder = execute(
        "data=digits", f"loss={loss}", "model=linear", "augment=mixup", "augment.padding_fraction=0", "augment.p=0",
        "scheduler=constant", "optimizer.lr=0.01", "trainer.max_epochs=3", "trainer=cpu", "logger=none", "test=false",
    )  # fmt: skip
    rows = (folder / "metrics.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert float(last["train/acc"]) > 0.6  # chance is 0.1


MIXED = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.1, 0.9]])
WHICH_LABELS = pytest.mark.parametrize("labels", [LABELS, MIXED, MIXED.bfloat16()])


def configured(name: str) -> nn.Module:
    config, _ = composed(f"loss={name}")
    loss: nn.Module = build("loss", config.loss)
    return loss


@WHICH_LABELS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", choices("loss"))
def test_every_loss_is_computed_in_fp32(name: str, dtype: torch.dtype, labels: Tensor) -> None:
    loss, logits = configured(name), LOGITS.detach().to(dtype)
    wanted = labels.float() if labels.is_floating_point() else labels
    expected = loss(logits.float(), wanted)
    for amp_type in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=amp_type):
            found = exact_loss(loss, logits, labels)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


@WHICH_LABELS
@pytest.mark.parametrize("name", choices("loss"))
def test_every_loss_of_fp64_is_computed_in_fp64(name: str, labels: Tensor) -> None:
    loss, logits = configured(name), LOGITS.detach().double() / 3
    found = exact_loss(loss, logits, labels)
    assert found.dtype == torch.float64
    wanted = labels.double() if labels.is_floating_point() else labels
    assert torch.equal(found, loss(logits, wanted))
    assert found != loss(logits.float(), wanted.float() if wanted is not labels else labels)


class Bilinear(nn.Module):
    """A user's loss: a cost for each pair of classes, with a matrix product and numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("costs", 1 - torch.eye(3) + torch.arange(3) / 7)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        costs = self.get_buffer("costs")
        return (logits.softmax(1) @ costs).gather(1, labels[:, None]).mean()


def test_a_loss_with_numbers_of_its_own_is_computed_in_fp32() -> None:
    exact, logits = Bilinear(), LOGITS.detach().bfloat16()
    taken_down = Bilinear().bfloat16()
    expected = exact(logits.float(), LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(exact_loss(exact, logits, LABELS), expected)
        keep_exact(taken_down)
        assert exact_loss(taken_down, logits, LABELS).dtype == torch.float32


@pytest.mark.parametrize("loss", choices("loss"))
@pytest.mark.parametrize(
    ("precision", "dtype", "augment"),
    [
        ("bf16-mixed", torch.float32, "mixup"),
        slow("bf16-mixed", torch.float32, "none"),
        slow("bf16-true", torch.float32, "none"),
        slow("bf16-true", torch.float32, "mixup"),
        slow("64-true", torch.float64, "none"),
        ("64-true", torch.float64, "mixup"),
    ],
)
def test_the_loss_of_a_run_is_exact(
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    loss: str,
    precision: str,
    dtype: torch.dtype,
    augment: str,
) -> None:
    losses: list[Tensor] = []
    score = ImageClassifier._score

    def note(self: ImageClassifier, *args: Any, **options: Any) -> Tensor:
        losses.append(score(self, *args, **options))
        return losses[-1]

    monkeypatch.setattr(ImageClassifier, "_score", note)
    execute(
        "data=synthetic", "data.shape=[1,6,6]", "data.num_train=64", "data.num_val=32",
        "model=mlp", "model.widths=[8]", "trainer=cpu", "trainer.max_epochs=1", "logger=none",
        f"trainer.precision={precision}", f"loss={loss}", f"augment={augment}",
    )  # fmt: skip
    assert {found.dtype for found in losses} == {dtype}
