"""What helps with unbalanced classes: weights, the focal loss, and recall beside accuracy."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from conftest import Execute, composed
from glimpse.class_weights import class_weights
from glimpse.data.module import ImageDataModule
from glimpse.errors import UserError
from glimpse.losses import Focal, LogSoftmaxNLL, SoftmaxMSE, divisor, use_class_weights
from glimpse.runs.trained import TrainedRun
from makers import save_image, shades

WEIGHTS = (1.0, 3.0, 0.5)
LOSSES = (nn.CrossEntropyLoss, LogSoftmaxNLL, Focal, SoftmaxMSE)


def data_with(labels: list[int], names: str = "abc") -> ImageDataModule:
    spec = SimpleNamespace(class_names=tuple(names))
    found = SimpleNamespace(spec=spec, labels=lambda _split: np.array(labels))
    return cast(ImageDataModule, found)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = [0] * 6 + [1] * 3 + [2] * 1
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    assert class_weights("balanced", data_with(labels)) == pytest.approx(expected.tolist())
    absent = class_weights("balanced", data_with([0, 0, 0, 2]))
    assert absent == pytest.approx([4 / 2 / 3, 1.0, 2.0])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("balance", "expected balanced, or a list"),
        ([1, 2], "2 numbers, expected one for each of the 3 classes (a, b, c)"),
        ([1, 2, 0], "0 is not a weight"),
        ([1, 2, -1], "-1 is not a weight"),
        ([1, 2, math.nan], "nan is not a weight"),
        ([1, 2, "x"], "x is not a weight"),
        ([1, 2, None], "None is not a weight"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(asked: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        class_weights(asked, data_with([0, 1, 2]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_mean_of_a_split_does_not_depend_on_its_batches(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    loss = kind()
    use_class_weights(loss, WEIGHTS)
    logits, labels = torch.randn(20, 3), torch.randint(3, (20,))
    whole = loss(logits, labels)
    sums = [
        (
            loss(logits[part], labels[part]) * divisor(loss, labels[part]),
            divisor(loss, labels[part]),
        )
        for part in torch.arange(20).split(6)
    ]
    total = sum(value for value, _ in sums) / sum(by for _, by in sums)
    torch.testing.assert_close(whole, total)
    by_image = torch.stack([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(20)])
    weights = torch.tensor(WEIGHTS)[labels]
    torch.testing.assert_close(whole, (by_image * weights).sum() / weights.sum())
    assert not loss.state_dict()  # the weights follow from the configuration


@pytest.mark.parametrize("kind", LOSSES)
def test_certain_probabilities_weigh_as_labels_do(kind: type[nn.Module]) -> None:
    """But for the divisor: as in torch's cross-entropy, it is the number of mixed images."""
    torch.manual_seed(0)
    loss = kind()
    use_class_weights(loss, WEIGHTS)
    logits, labels = torch.randn(8, 3), torch.randint(3, (8,))
    mixed = loss(logits, F.one_hot(labels, 3).float())
    torch.testing.assert_close(loss(logits, labels) * divisor(loss, labels), mixed * 8)


def test_the_focal_loss_is_the_papers() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(50, 4) * 3, torch.randint(4, (50,))
    right = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    expected = (-((1 - right) ** 2) * right.log()).mean()
    torch.testing.assert_close(Focal()(logits, labels), expected)
    torch.testing.assert_close(Focal(gamma=0)(logits, labels), F.cross_entropy(logits, labels))
    sure = torch.tensor([[60.0, 0.0]], requires_grad=True)
    [gradient] = torch.autograd.grad(Focal(gamma=0.5)(sure, torch.tensor([0])), sure)
    assert gradient.isfinite().all()


def test_a_loss_of_ones_own_has_them_in_its_attribute() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = None

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, weight=self.weight)

    loss, logits, labels = Own(), torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    use_class_weights(loss, [1.0, 2.0, 5.0])
    expected = F.cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0, 5.0]))
    torch.testing.assert_close(loss(logits, labels), expected)


def test_a_loss_without_weights_says_so() -> None:
    with pytest.raises(UserError, match="HuberLoss has no class weights"):
        use_class_weights(nn.HuberLoss(), WEIGHTS)


# In a run -----------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, (name, number) in enumerate((("common", 50), ("middle", 20), ("rare", 10))):
        for row, image in enumerate(shades([label] * number, 3, size=8, channels=3, seed=label)):
            save_image(image, tmp_path / "photos" / name / f"{row}.png")
    return tmp_path / "photos"


def test_an_unbalanced_run_shows_the_recall_of_each_class(
    execute: Execute, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = execute(
        "data=image_folder", f"data.root={photos}", "data.val_fraction=0.2", "model=linear",
        "trainer=cpu", "trainer.max_epochs=2", "logger=none", "loss.class_weights=balanced",
        "loss.label_smoothing=0.1",
    )  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    found = TrainedRun(folder).predict("test")
    for label, name in enumerate(found.class_names):
        recall = found.correct[found.labels == label].mean()
        assert summary["class_recall"][name] == pytest.approx(recall)
    printed = capsys.readouterr().out
    assert "test  recall of each class" in printed
    assert "an epoch is one step: 48 training images in batches of 64" in printed
    assert "no test set" not in printed
    weights = torch.tensor([48 / 3 / 30, 48 / 3 / 12, 48 / 3 / 6])
    expected = F.cross_entropy(
        torch.from_numpy(found.logits), torch.from_numpy(found.labels), weights, label_smoothing=0.1
    )
    assert summary["metrics"]["test/loss"] == pytest.approx(expected.item(), rel=1e-5)
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {"network.head.weight", "network.head.bias"}


def test_a_balanced_run_has_no_recall_of_classes(execute: Execute) -> None:
    folder = execute(
        "data=synthetic", "data.num_train=40", "data.num_val=20", "model=linear", "trainer=cpu",
        "trainer.max_epochs=1", "logger=none",
    )  # fmt: skip
    assert "class_recall" not in json.loads((folder / "summary.json").read_text())


def test_the_weights_of_every_loss_reach_a_run(execute: Execute) -> None:
    with pytest.raises(UserError, match="3 numbers, expected one for each of the 10 classes"):
        execute("data=digits", "loss=focal", "loss.class_weights=[1,2,3]", "trainer=cpu")
    config, _ = composed("loss=mse", "loss.class_weights=balanced")
    assert config.loss.class_weights == "balanced"
