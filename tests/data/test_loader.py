"""Every image once an epoch, in an order that (seed, epoch) fix, from any batch on."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glimpse.data.decode import PixelFormat
from glimpse.data.decoded_rows import DecodedRows
from glimpse.data.loader import ArrayRows, Batch, BatchLoader, EpochOrder
from glimpse.data.sets.synthetic import Synthetic
from glimpse.errors import UserError
from makers import save_image


def epoch_of(order: EpochOrder, epoch: int = 0, start: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in order.batches(epoch, start)]


def positions(order: EpochOrder, epoch: int = 0) -> list[int]:
    return [position for batch in epoch_of(order, epoch) for position in batch]


def training(num_images: int, **options: Any) -> EpochOrder:
    return EpochOrder(num_images, **({"batch_size": 4, "training": True} | options))


def loader(num_images: int = 22, *, epoch: list[int] | None = None, **options: Any) -> BatchLoader:
    """Batches of 1×1 images whose pixel is 100 + their index, and whose label is their index."""
    images = torch.arange(100, 100 + num_images, dtype=torch.uint8).view(-1, 1, 1, 1)
    fetch = ArrayRows(images, torch.arange(num_images), pin_memory=False)
    current = epoch if epoch is not None else [0]
    return BatchLoader(
        torch.arange(num_images),
        training(num_images, **options),
        fetch,
        current_epoch=lambda: current[0],
    )


def indices(batches: Any) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches]


def test_seed_and_epoch_fix_the_order() -> None:
    assert epoch_of(training(50, seed=3), 2) == epoch_of(training(50, seed=3), 2)


def test_other_seeds_and_epochs_have_other_orders() -> None:
    orders = [tuple(positions(training(50, seed=seed), e)) for seed in range(4) for e in range(4)]
    assert len(set(orders)) == 16


def test_global_random_state_neither_decides_the_order_nor_is_changed() -> None:
    torch.manual_seed(0)
    first = positions(training(50))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    assert positions(training(50)) == first
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_images", [1, 4, 9, 22, 24])
def test_each_image_once_an_epoch(num_images: int) -> None:
    for epoch in range(3):
        assert sorted(positions(training(num_images), epoch)) == list(range(num_images))


def test_evaluation_goes_in_order() -> None:
    assert epoch_of(EpochOrder(9, batch_size=4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


@pytest.mark.parametrize("num_images", [22, 25])
@pytest.mark.parametrize("world_size", [1, 3])
def test_starting_at_a_batch_gives_the_rest_of_the_epoch(num_images: int, world_size: int) -> None:
    order = training(num_images, world_size=world_size, rank=world_size - 1)
    whole = epoch_of(order, epoch=1)
    assert len(order) == len(whole)
    for start in range(len(whole) + 1):
        assert epoch_of(order, epoch=1, start=start) == whole[start:]


def own(order: EpochOrder) -> list[list[int]]:
    """The batches of a rank without those that only keep it busy."""
    pairs = zip(epoch_of(order), order.shares(), strict=True)
    return [batch if share else [] for batch, share in pairs]


@pytest.mark.parametrize("num_images", [2, 3, 22, 23, 24, 25, 26, 27])
@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 4), (4, 2), (8, 1), (3, 4)])
def test_ranks_share_the_batches_of_one(num_images: int, world_size: int, batch_size: int) -> None:
    options = {"batch_size": batch_size, "world_size": world_size}
    orders = [training(num_images, **options, rank=rank) for rank in range(world_size)]
    of_one = epoch_of(training(num_images, batch_size=batch_size * world_size))
    assert {len(order) for order in orders} == {len(of_one)}  # or one process would wait for ever
    for batch, *mine in zip(of_one, *map(own, orders), strict=True):
        assert sorted(position for part in mine for position in part) == sorted(batch)
        smallest = min(2, batch_size, len(batch))
        assert all(len(part) >= smallest or not part for part in mine)
    for number, batch in enumerate(of_one):
        sizes = [len(own(order)[number]) for order in orders]
        shares = [order.shares()[number] for order in orders]
        assert shares == pytest.approx([size * world_size / len(batch) for size in sizes])


@pytest.mark.parametrize(("num_images", "world_size"), [(22, 2), (23, 2), (23, 4), (2, 3)])
def test_ranks_evaluate_each_image_exactly_once(num_images: int, world_size: int) -> None:
    orders = [
        EpochOrder(num_images, batch_size=4, world_size=world_size, rank=rank)
        for rank in range(world_size)
    ]
    assert all(len(order) for order in orders)  # Lightning leaves out an evaluation without batches
    found = [position for order in orders for batch in own(order) for position in batch]
    assert sorted(found) == list(range(num_images))


@pytest.mark.parametrize(
    ("num_images", "sizes"), [(9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (1, [1]), (5, [5])]
)
def test_no_training_batch_of_one_image_beside_others(num_images: int, sizes: list[int]) -> None:
    order = training(num_images)
    assert [len(batch) for batch in epoch_of(order)] == sizes
    assert len(order) == len(sizes)


def test_a_batch_size_of_one_is_obeyed_but_for_the_last() -> None:
    assert [len(batch) for batch in epoch_of(training(4, batch_size=1))] == [1, 1, 2]


def test_evaluation_keeps_a_last_batch_of_one() -> None:
    assert [len(batch) for batch in epoch_of(EpochOrder(9, batch_size=4))] == [4, 4, 1]


def test_batches_hold_the_images_and_labels_of_their_indices() -> None:
    for batch in loader():
        assert batch.images.shape[1:] == (1, 1, 1)
        assert torch.equal(batch.images.flatten().long(), 100 + batch.indices)
        assert torch.equal(batch.labels, batch.indices)


def test_a_loader_serves_its_rows_only() -> None:
    images = torch.zeros(10, 2, 2, 1, dtype=torch.uint8)
    fetch = ArrayRows(images, torch.arange(10), pin_memory=False)
    chosen = BatchLoader(torch.tensor([2, 5, 7]), EpochOrder(3, batch_size=2), fetch)
    assert indices(chosen) == [[2, 5], [7]]


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_restored_loader_goes_on_where_it_was(stop: int) -> None:
    epoch = [0]
    unbroken, stopped = loader(epoch=epoch), loader(epoch=epoch)
    first, second = indices(unbroken), []
    for _, batch in zip(range(stop), stopped, strict=False):
        second.append(batch.indices.tolist())
    restored = loader(epoch=epoch)
    restored.load_state_dict(stopped.state_dict())
    if stop < len(first):
        second += indices(restored)
    assert second == first
    epoch[0] = 1
    assert indices(restored) == indices(unbroken)


def test_an_epoch_that_was_left_is_followed_by_the_whole_next() -> None:
    epoch = [0]
    left, fresh = loader(epoch=epoch), loader(epoch=epoch)
    next(iter(left))
    assert indices(left) == indices(fresh)
    next(iter(left))
    state = left.state_dict()
    epoch[0] = 1
    assert indices(left) == indices(fresh)
    restored = loader(epoch=epoch)  # a checkpoint at the end of a limited epoch
    restored.load_state_dict(state)
    assert indices(restored) == indices(fresh)


class Recorder(pl.LightningModule):
    """Remembers which images it saw, by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 3)
        self.trained: dict[int, list[int]] = {}
        self.validated: dict[int, list[int]] = {}

    def training_step(self, batch: Batch, number: int) -> Tensor:
        self.trained.setdefault(self.current_epoch, []).extend(batch.indices.tolist())
        return self.layer(batch.images.flatten(1)).sum()

    def validation_step(self, batch: Batch, number: int) -> None:
        self.validated.setdefault(self.current_epoch, []).extend(batch.indices.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(**options: Any) -> Recorder:
    data = Synthetic(
        data_dir="none", seed=0, batch_size=5, val_fraction=0.0,
        shape=[3, 4, 4], num_classes=3, num_train=50, num_val=30,
    )  # fmt: skip
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(recorder, datamodule=data)
    return recorder


@pytest.mark.filterwarnings("ignore:.*overfit_batches.*", "ignore:.*does not have many workers.*")
def test_limited_epochs_in_a_training() -> None:
    seen = fit(limit_train_batches=3, limit_val_batches=2)
    assert [len(images) for images in seen.trained.values()] == [15, 15, 15]
    order = training(50, batch_size=5)
    assert [positions(order, epoch)[:15] for epoch in range(3)] == list(seen.trained.values())
    assert list(seen.validated.values()) == [list(range(10))] * 3
    seen = fit(overfit_batches=2)
    assert list(seen.trained.values()) == [positions(order, 0)[:10]] * 3


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for path in paths:
        save_image(random.integers(0, 256, (4, 6, 3), np.uint8), path)
    return paths


@pytest.mark.parametrize("num_workers", [0, 1])
def test_decoding_as_needed_gives_the_order_of_the_array(
    files: list[Path], num_workers: int
) -> None:
    wanted, labels = PixelFormat(4, 6, 3), torch.arange(9) % 3
    decoded = DecodedRows(files, labels, wanted, num_workers=num_workers, pin_memory=False)
    batches = list(BatchLoader(torch.arange(9), training(9, seed=5), decoded))
    assert indices(batches) == epoch_of(training(9, seed=5))
    assert batches[0].images.shape == (4, 4, 6, 3)
    assert batches[0].images.dtype == torch.uint8
    assert torch.equal(batches[1].labels, batches[1].indices % 3)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_one_line(files: list[Path], num_workers: int) -> None:
    files[7].write_bytes(files[7].read_bytes()[:60])
    wanted = PixelFormat(4, 6, 3)
    decoded = DecodedRows(files, torch.zeros(9), wanted, num_workers=num_workers, pin_memory=False)
    with pytest.raises(UserError, match=r"7\.png") as error:
        list(BatchLoader(torch.arange(9), EpochOrder(9, batch_size=4), decoded))
    assert len(str(error.value).splitlines()) == 1
