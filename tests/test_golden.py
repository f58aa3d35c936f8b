"""Golden losses: the first ten steps of three small recipes, so that a change of numbers is noticed.

Recorded with torch 2.14 on one CPU thread in fp32. Whoever changes them on purpose runs
`pytest tests/test_golden.py`, which prints what was found, and says in the commit why.
"""

import pytest
from torch import Tensor

from conftest import Execute
from glimpse.classifier import ImageClassifier
from glimpse.data.loader import Batch

SHORT = ("trainer=cpu", "trainer.max_steps=10", "trainer.precision=32-true", "logger=none")
RECIPES: dict[str, tuple[tuple[str, ...], list[float]]] = {
    "default": (
        ("model=convnet_bn", "model.widths=[16,32,64]", "model.hidden=64", "data.batch_size=64"),
        [
            2.44489, 2.3543, 2.40834, 2.32085, 2.28709, 2.29735, 2.32788, 2.35991, 2.22442, 2.25425,
        ],
    ),
    "birds": (
        ("experiment=birds_from_airplanes", "data=synthetic", "data.num_classes=2"),
        [
            0.62588, 0.27472, 0.16052, 0.12068, 0.09582, 0.08004, 0.07022, 0.05901, 0.04727, 0.04369,
        ],
    ),
    "crops": (
        (
            "data=synthetic", "data.shape=[3,16,16]", "data.batch_size=32", "augment=crop_flip",
            "model.widths=[8,16,32]", "model.hidden=32", "optimizer.lr=0.01",
            "scheduler.warmup_fraction=0.3",
        ),
        [
            2.37723, 2.2836, 2.31558, 2.46226, 2.20192, 2.13115, 2.06445, 2.13071, 2.18443, 2.05094,
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_ten_losses(execute: Execute, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    options, expected = RECIPES[name]
    losses: list[float] = []
    step = ImageClassifier.training_step

    def noted(self: ImageClassifier, batch: Batch, batch_idx: int) -> Tensor:
        loss = step(self, batch, batch_idx)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(ImageClassifier, "training_step", noted)
    execute(*options, *SHORT, "test=false")
    print([round(loss, 5) for loss in losses])
    # Other processors sum in another order; a changed recipe differs by far more.
    assert losses == pytest.approx(expected, rel=1e-3)
