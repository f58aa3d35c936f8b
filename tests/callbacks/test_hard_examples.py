"""Which images a run trains on with callbacks=[hard_examples], and that a resume chooses the same."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from conftest import Execute, slow
from glimpse.callbacks.hard_examples import HardExamples
from glimpse.classifier import ImageClassifier
from glimpse.data.loader import Batch
from glimpse.errors import DivergedError, UserError
from test_resume import SMALL, check_stopped_equals_unbroken

HARD = (*SMALL, "callbacks=[hard_examples]")


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """How many images each step of the network has, by split."""
    seen: list[tuple[str, int]] = []
    step = ImageClassifier._step

    def noting(self: ImageClassifier, batch: Batch, split: str, **options: Any) -> torch.Tensor:
        seen.append((split, len(batch.images)))
        return step(self, batch, split, **options)

    monkeypatch.setattr(ImageClassifier, "_step", noting)
    return seen


def test_training_uses_a_part_of_each_batch_and_validation_all_of_it(
    execute: Execute, sizes: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    execute(*HARD, "callbacks.hard_examples.fraction=0.25")
    assert {size for split, size in sizes if split == "train"} == {4, 2}  # of 16, and of the last 4
    assert sum(size for split, size in sizes if split == "val") == 3 * 40
    assert "trains on the 4 hardest of each 16 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        ("augment=none",),
        ("augment=cutmix", "optimizer=muon"),
        slow(("optimizer=sgd", "trainer.precision=bf16-mixed", "data.shape=[3,40,8]")),
    ],
    ids=lambda options: options[0],
)
def test_the_images_with_the_highest_loss_are_kept_in_their_order(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    found: list[tuple[Batch, Batch, torch.Tensor]] = []
    original = HardExamples._hardest

    def noting(self: HardExamples, batch: Batch) -> Batch:
        side = [min(max(side, 16), 32) for side in batch.images.shape[2:]]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._is_in_half):
            logits = copy.deepcopy(self.proxy)(F.interpolate(batch.images, side, mode="area"))
        losses = F.cross_entropy(logits.float(), batch.labels, reduction="none")
        kept = original(self, batch)
        found.append((batch, kept, losses))
        return kept

    monkeypatch.setattr(HardExamples, "_hardest", noting)
    execute(*HARD, *options)
    assert len(found) == 21
    for whole, kept, losses in found:
        positions = [whole.indices.tolist().index(index) for index in kept.indices.tolist()]
        assert positions == sorted(losses.argsort(descending=True)[: len(positions)].tolist())
        assert torch.equal(kept.images, whole.images[positions])
        assert torch.equal(kept.labels, whole.labels[positions])


def test_images_with_wrong_labels_are_kept(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy learns the digits: at the end it keeps most images whose labels are wrong."""
    shares: list[float] = []
    original = HardExamples._hardest

    def with_wrong_labels(self: HardExamples, batch: Batch) -> Batch:
        is_wrong = batch.indices % 8 == 0
        kept = original(
            self,
            batch._replace(labels=torch.where(is_wrong, (batch.labels + 1) % 10, batch.labels)),
        )
        shares.append(((kept.indices % 8 == 0).sum() / is_wrong.sum().clamp_min(1)).item())
        return kept

    monkeypatch.setattr(HardExamples, "_hardest", with_wrong_labels)
    execute(
        "data=digits", "data.batch_size=100", "model=linear", "optimizer=muon",
        "callbacks=[hard_examples]", "trainer=cpu", "trainer.max_epochs=5", "logger=none",
    )  # fmt: skip
    assert sum(shares[-13:]) / 13 > 0.8  # in the last epoch; a random choice keeps half


@pytest.mark.parametrize("optimizer", ["muon", slow("adamw")])
def test_a_resumed_run_keeps_the_same_images(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    options = (*HARD, f"optimizer={optimizer}", "augment=[crop_flip,cutmix]")
    check_stopped_equals_unbroken(
        execute, tmp_path, monkeypatch, options, ("on_train_batch_end", 1, 3)
    )


def test_the_proxy_takes_the_settings_of_the_resumed_run(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*HARD, "optimizer=sgd")
    folder = execute(*options, "optimizer.momentum=0.9", "trainer.max_epochs=1")
    momenta: set[float] = set()
    original = HardExamples._hardest

    def noting(self: HardExamples, batch: Batch) -> Batch:
        assert self.optimizer is not None
        momenta.update(group["momentum"] for group in self.optimizer.param_groups)
        return original(self, batch)

    monkeypatch.setattr(HardExamples, "_hardest", noting)
    new = ("optimizer.momentum=0.5", "trainer.max_epochs=2", f"resume={folder}")
    execute(*options, *new, folder=folder)
    assert momenta == {0.5}


def test_a_proxy_that_diverges_ends_the_run(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = HardExamples._hardest

    def breaking(self: HardExamples, batch: Batch) -> Batch:
        kept = original(self, batch)
        torch.nn.init.constant_(self.proxy.whiten.weight, torch.nan)
        return kept

    monkeypatch.setattr(HardExamples, "_hardest", breaking)
    with pytest.raises(
        DivergedError, match=r"weight of the proxy network is not finite in epoch 1"
    ):
        execute(*HARD)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("callbacks.hard_examples.fraction=50",), "expected at most 1"),
        (("callbacks=[hard_examples,frozen_features]",), "features computed once are no images"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line(
    execute: Execute, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        execute(*HARD, *options)
