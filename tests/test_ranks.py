"""Accuracy, top 5 and rank agree, in a run and in its evaluation, also where logits are equal."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conftest import Execute, slow
from glimpse.classifier import ImageClassifier
from glimpse.insight.predictions import Predictions
from glimpse.insight.scores import score
from glimpse.models.linear import Linear
from glimpse.ranks import ranks
from glimpse.runs.trained import TrainedRun


def slow_rank(logits: list[float], label: int) -> int:
    """By sorting: a stable sort keeps equal logits in the order of their classes."""
    order = sorted(range(len(logits)), key=lambda k: -logits[k])
    return order.index(label) + 1


def test_equal_logits_stand_in_the_order_of_their_classes() -> None:
    torch.manual_seed(0)
    logits = torch.randint(-2, 3, (300, 9)).float()
    logits[:4] = torch.tensor([0.0, torch.inf, -torch.inf, 7.0])[:, None]
    labels = torch.randint(9, (300,))
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    assert ranks(logits, labels).tolist() == [slow_rank(row, label) for row, label in rows]
    assert ((ranks(logits, labels) == 1) == (logits.argmax(1) == labels)).all()


def test_nan_counts_as_argmax_counts_it() -> None:
    logits = torch.tensor([[1.0, torch.nan, 3.0, torch.nan]] * 4)
    assert ranks(logits, torch.arange(4)).tolist() == [4, 1, 3, 2]
    assert logits.argmax(1).tolist() == [1] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_are_compared_as_predictions_keep_them(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (1000 + torch.randn(500, 8, dtype=torch.float64) * 1e-4).to(dtype)
    labels = torch.randint(8, (500,))
    kept = Predictions("val", tuple("abcdefgh"), logits.float().numpy(), labels.numpy())
    assert (kept.ranks == ranks(logits, labels).numpy()).all()
    assert ((kept.ranks == 1) == kept.correct).all()
    assert len(set(logits.float().flatten().tolist())) < 4000  # there are ties


def test_a_constant_network_scores_what_its_first_classes_do() -> None:
    labels = np.arange(70) % 7
    constant = Predictions("val", tuple("abcdefg"), np.full((70, 7), 0.3, np.float32), labels)
    found = score(constant, num_resamples=5).overall
    assert found["acc"].value == pytest.approx(1 / 7)
    assert found["top5"].value == pytest.approx(5 / 7)
    assert constant.predicted.tolist() == [0] * 70


def test_losses_and_confidence_are_of_the_softmax() -> None:
    logits: NDArray[np.float32] = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    labels = np.arange(50) % 6
    found = Predictions("val", tuple("abcdef"), logits * 9, labels)
    expected = nn.functional.cross_entropy(
        torch.from_numpy(logits * 9), torch.from_numpy(labels), reduction="none"
    )
    torch.testing.assert_close(torch.from_numpy(found.losses), expected)
    most = torch.from_numpy(logits * 9).softmax(1).amax(1)
    torch.testing.assert_close(torch.from_numpy(found.confidence), most)


class Constant(Linear):
    """The same logits for all classes and images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 0


class Doubled(Linear):
    """Three neighbouring classes have one output unit."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits[:, torch.arange(logits.shape[1]) // 3]


class Coarse(Linear):
    """Logits rounded to whole numbers."""

    def forward(self, images: Tensor) -> Tensor:
        return (super().forward(images) * 2).round()


@pytest.mark.parametrize(
    ("network", "precision"),
    [
        case if network is Coarse or precision == "bf16-mixed" else slow(*case)
        for network in (Constant, Doubled, Coarse, Linear)
        for precision in ("32-true", "bf16-mixed", "bf16-true", "64-true")
        for case in [(network, precision)]
    ],
)
def test_evaluation_finds_the_scores_of_the_run(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, network: type[Linear], precision: str
) -> None:
    monkeypatch.setattr("glimpse.models.linear.Linear", network)
    measured: dict[str, float] = {}
    finish = ImageClassifier._finish

    def note(self: ImageClassifier, split: str, suffix: str = "") -> dict[str, float]:
        measured.update(finish(self, split, suffix))
        return {n: v for n, v in measured.items() if n.startswith(f"{split}/")}

    monkeypatch.setattr(ImageClassifier, "_finish", note)
    folder = execute(
        "data=synthetic", "data.shape=[1,6,6]", "data.num_classes=9", "data.num_train=100",
        "data.num_val=99", "data.batch_size=16", "model=linear", "trainer=cpu", "logger=none",
        "trainer.max_epochs=1", f"trainer.precision={precision}",
    )  # fmt: skip
    trained = TrainedRun(folder)
    assert isinstance(trained.model, network)
    for split in ("val", "test"):
        found = score(trained.predict(split), num_resamples=2).overall
        for name in ("acc", "top5"):
            assert found[name].value == pytest.approx(measured[f"{split}/{name}"], abs=1e-12)
