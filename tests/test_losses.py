"""The losses of the documents, against their definitions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import Execute, choices
from glimpse.losses import LogSoftmaxNLL, SoftmaxMSE

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
