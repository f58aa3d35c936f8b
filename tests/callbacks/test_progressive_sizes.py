"""Small images first; the best checkpoint is one of the full size; a resumed run is in its stage."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Execute
from glimpse.callbacks.progressive_sizes import ProgressiveSizes
from glimpse.classifier import ImageClassifier
from glimpse.data.loader import Batch
from glimpse.errors import UserError

OPTIONS = (
    "data=synthetic", "data.shape=[3,32,32]", "data.num_train=64", "data.num_val=32", "data.num_classes=2",
    "model=convnet_bn", "model.widths=[8,16]", "model.hidden=8", "callbacks=[progressive_sizes]",
    "augment=crop_flip", "trainer=cpu", "trainer.max_epochs=5", "logger=none",
)  # fmt: skip


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which sides the network sees, by split."""
    seen: list[tuple[str, int]] = []
    step = ImageClassifier._step

    def noting(self: ImageClassifier, batch: Batch, split: str, **options: Any) -> torch.Tensor:
        seen.append((split, batch.images.shape[-1]))
        return step(self, batch, split, **options)

    monkeypatch.setattr(ImageClassifier, "_step", noting)
    return seen


def test_sides_rise_and_every_measurement_is_at_the_full_size(
    execute: Execute, sides: list[tuple[str, int]]
) -> None:
    folder = execute(*OPTIONS)
    training = [side for split, side in sides if split == "train"]
    assert [*dict.fromkeys(training)] == [16, 24, 32]
    assert {side for split, side in sides if split != "train"} == {32}
    assert json.loads((folder / "summary.json").read_text())["best_epoch"] >= 4
    with (folder / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5


def test_images_too_small_to_reduce_are_the_full_size_in_each_epoch(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every epoch can be the best, and that nothing is reduced is said."""
    folder = execute(*OPTIONS, "data.shape=[3,8,8]", "trainer.max_epochs=3", "optimizer.lr=0")
    assert json.loads((folder / "summary.json").read_text())["best_epoch"] == 1
    assert "reduces nothing: images of 8×8 are too small" in capsys.readouterr().out


def test_a_resumed_run_goes_on_at_its_side(
    execute: Execute, tmp_path: Path, sides: list[tuple[str, int]]
) -> None:
    folder = execute(*OPTIONS, "trainer.limit_train_batches=1", "test=false")
    sides.clear()
    execute(
        *OPTIONS, "trainer.max_epochs=10", f"resume={folder}", "trainer.limit_train_batches=1",
        "test=false", folder=folder,
    )  # fmt: skip
    assert [side for split, side in sides if split == "train"] == [24, 32, 32, 32, 32]


@pytest.mark.parametrize(
    ("fractions", "until"),
    [([0.5, 1.0], []), ([1.0, 0.5], [0.5]), ([0.5, 0.75, 1.0], [0.6, 0.3]), ([0.0, 1.0], [0.5])],
)
def test_stages_that_do_not_fit_are_refused(fractions: list[float], until: list[float]) -> None:
    with pytest.raises(UserError, match="expected fractions that end with 1"):
        ProgressiveSizes(fractions=fractions, until=until)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("trainer.max_epochs=2",), r"small images \(24×24\): type trainer.max_epochs=3 or more"),
        (
            ("trainer.max_steps=2", "data.batch_size=32"),  # of 10, two in each epoch
            r"trainer.max_steps=2 ends the run .* \(16×16\): type trainer.max_steps=8 or more",
        ),
        (("model=mlp",), "MLP does not accept images of 16×16"),
    ],
)
def test_what_would_never_be_trained_is_refused_before_it(
    execute: Execute, options: tuple[str, ...], message: str
) -> None:
    given = [o for o in OPTIONS if not o.startswith("model") or options[0].startswith("trainer")]
    with pytest.raises(UserError, match=message):
        execute(*given, *options)
