"""How often each class is drawn in an epoch, and that a run resumes within one."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import Execute, composed
from glimpse.assembly import build_data
from glimpse.data.loader import EpochOrder
from glimpse.data.sampling import ClassSampling, SampledRows
from glimpse.errors import UserError
from makers import save_image, shades
from test_resume import check_stopped_equals_unbroken

SIZES = (64, 16, 4)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), SIZES))


def numbers(how: str, epoch: int, seed: int = 0) -> np.ndarray:
    return ClassSampling(LABELS, how, seed=seed).of_epoch(epoch).numpy()


@pytest.mark.parametrize(("how", "shares"), [("balanced", (28, 28, 28)), ("sqrt", (48, 24, 12))])
def test_an_epoch_has_these_images_of_each_class(how: str, shares: tuple[int, ...]) -> None:
    for epoch in range(5):
        found = numbers(how, epoch)
        assert len(np.unique(found)) == len(found) == len(LABELS)
        assert np.bincount(LABELS[found % len(LABELS)]).tolist() == list(shares)
    assert numbers(how, 3).tolist() == numbers(how, 3).tolist()
    assert numbers(how, 3).tolist() != numbers(how, 4).tolist() != numbers(how, 4, seed=1).tolist()


@pytest.mark.parametrize("how", ["balanced", "sqrt"])
def test_the_first_time_that_an_epoch_shows_an_image_its_number_is_its_position(how: str) -> None:
    for epoch in range(9):
        turns: dict[int, list[int]] = {}
        for number in numbers(how, epoch).tolist():
            turns.setdefault(number % len(LABELS), []).append(number // len(LABELS))
        assert all(sorted(times) == list(range(len(times))) for times in turns.values())


def test_all_images_of_a_class_are_seen_equally_often() -> None:
    """28 of 64 an epoch: after 16 epochs, each 7 times."""
    seen = Counter(int(n) % len(LABELS) for epoch in range(16) for n in numbers("balanced", epoch))
    assert {seen[row] for row in np.flatnonzero(LABELS == 0)} == {7}
    assert {seen[row] for row in np.flatnonzero(LABELS == 2)} == {112}


def test_shares_that_do_not_divide_still_fill_the_epoch() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 3])  # class 2 has no image
    found = ClassSampling(labels, "balanced", seed=0).of_epoch(2).numpy()
    counts = np.bincount(labels[found % 7], minlength=4)
    assert counts.sum() == 7
    assert counts[2] == 0
    assert counts.max() - counts[[0, 1, 3]].min() == 1


def test_rows_of_repeated_images_are_told_apart() -> None:
    rows = SampledRows(torch.tensor([5, 9, 2]), part_size=10)
    assert rows[torch.tensor([0, 2, 4, 7])].tolist() == [5, 2, 19, 29]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_ranks_share_an_epoch_and_start_at_any_batch(world_size: int) -> None:
    sampling = ClassSampling(LABELS, "balanced", seed=3)

    def batches(rank: int, start: int = 0) -> list[list[int]]:
        order = EpochOrder(
            len(LABELS), batch_size=8, training=True, seed=3, rank=rank, world_size=world_size,
            sampling=sampling,
        )  # fmt: skip
        return [batch.tolist() for batch in order.batches(2, start)]

    every = [batches(rank) for rank in range(world_size)]
    together = [number for rank in every for batch in rank for number in batch]
    assert sorted(set(together)) == sorted(numbers("balanced", 2, seed=3).tolist())
    assert len(together) == -(-len(LABELS) // world_size) * world_size
    assert batches(0, start=2) == every[0][2:]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, (name, number) in enumerate((("common", 40), ("rare", 5))):
        for row, image in enumerate(shades([label] * number, 2, size=8, channels=3, seed=label)):
            save_image(image, tmp_path / "photos" / name / f"{row}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_batch_holds_the_images_of_its_numbers(photos: Path, cache: str) -> None:
    config, _ = composed(
        "data=image_folder", f"data.root={photos}", f"data_dir={photos.parent / 'data'}",
        "data.sampling=balanced", "data.batch_size=10", "data.val_fraction=0.2", "data.num_workers=0",
        f"data.cache={cache}", "data.test_fraction=0.2",
    )  # fmt: skip
    data = build_data(config)
    rows = data.splits["train"].rows
    labels, indices, images = [], [], []
    for batch in data.batches.loader("train", training=True):
        labels += batch.labels.tolist()
        indices += batch.indices.tolist()
        images += [image.float().mean().item() for image in batch.images]
    assert len(labels) == len(rows) == 27
    assert sorted(Counter(labels).values()) == [13, 14]
    assert len(set(indices)) == 27  # an image that is shown again draws its augmentation anew
    assert {index % 45 for index in indices} <= set(rows.tolist())
    brightness = [
        np.mean([m for m, k in zip(images, labels, strict=True) if k == j]) for j in (0, 1)
    ]
    assert brightness[1] - brightness[0] > 50
    ordered = [b.labels.tolist() for b in data.batches.loader("train")]
    assert sum(map(len, ordered)) == 27  # an evaluation sees every image once


def test_a_class_without_training_images_is_named_and_not_drawn(tmp_path: Path) -> None:
    rows = [f"{label},{','.join(['9'] * 16)}" for label in (0, 0, 0, 2, 2, 2, 2, 2, 2, 2)]
    header = "label," + ",".join(f"p{i}" for i in range(16))
    (tmp_path / "gaps.csv").write_text("\n".join([header, *rows]))
    config, _ = composed(
        "data=csv", f"data.train={tmp_path / 'gaps.csv'}", f"data_dir={tmp_path / 'data'}",
        "data.num_classes=4", "data.sampling=balanced", "data.test_fraction=0.2",
    )  # fmt: skip
    data = build_data(config)
    assert "no training image of 1, 3, which the network cannot learn" in data.describe()
    labels = torch.cat([b.labels for b in data.batches.loader("train", training=True)])
    assert labels.bincount(minlength=4).tolist() == [4, 0, 4, 0]


def test_a_sampled_run_resumes_bit_for_bit(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    options = (
        "data=image_folder", f"data.root={photos}", "data.batch_size=8", "data.val_fraction=0.2",
        "data.sampling=balanced", "model=convnet_bn", "model.widths=[8]", "model.hidden=8",
        "augment=crop_flip", "trainer=cpu", "trainer.max_epochs=3", "logger=none",
        "loss=focal", "loss.class_weights=[1,3]", "metrics=[f1,auroc]",
    )  # fmt: skip
    where = ("on_train_batch_end", 1, 1)
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, options, where)
    changed = ("data.sampling=sqrt", f"resume={tmp_path / 'stopped'}", "trainer.max_epochs=4")
    execute(*options, *changed, folder=tmp_path / "stopped")  # between two epochs it may change


def test_another_sampling_within_an_epoch_is_refused() -> None:
    from glimpse.resume import _require_same_sampling

    saved = {"config": {"data": {"batch_size": 8}}, "next_batch": {"next_batch": 3}}
    with pytest.raises(UserError, match=r"type data\.sampling=shuffle until that epoch ends"):
        _require_same_sampling(saved, {"sampling": "balanced"})
