"""Each image draws its own change, whatever batch it is in."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from glimpse.data.augment import Augmentation, CropFlip, Flip, uniform_draws


def images_of(size: int = 40, channels: int = 3, height: int = 12, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (size, channels, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def draws_of(size: int = 40, columns: int = 3) -> Tensor:
    return uniform_draws(torch.arange(size), columns, seed=0, epoch=0)


# Draws ------------------------------------------------------------------------------------------


def test_draws_do_not_depend_on_the_batch() -> None:
    indices = torch.tensor([7, 3, 900, 3])
    together = uniform_draws(indices, 3, seed=1, epoch=2)
    assert together.shape == (4, 3)
    for row, index in enumerate(indices):
        assert torch.equal(uniform_draws(index[None], 3, seed=1, epoch=2)[0], together[row])


def test_draws_differ_by_seed_epoch_and_index() -> None:
    keys = [(seed, epoch) for seed in range(4) for epoch in range(4)]
    draws = [uniform_draws(torch.arange(50), 2, seed=s, epoch=e) for s, e in keys]
    assert len(torch.cat(draws).unique(dim=0)) == 16 * 50


def test_draws_are_uniform() -> None:
    draws = uniform_draws(torch.arange(20_000), 3, seed=4, epoch=1)
    assert draws.dtype == torch.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        counts = torch.histc(column, 20, 0, 1)
        # chi-squared of 19 degrees of freedom exceeds 43.8 once in a thousand draws
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8


def test_draws_are_uncorrelated() -> None:
    """Over columns, neighbouring images and successive epochs."""
    here = uniform_draws(torch.arange(20_000), 3, seed=4, epoch=1)
    later = uniform_draws(torch.arange(20_000), 3, seed=4, epoch=2)
    rows = torch.cat([here[:-1].T, here[1:].T, later[:-1].T])
    correlations = torch.corrcoef(rows) - torch.eye(9)
    assert correlations.abs().max() < 0.03  # four standard errors


@pytest.mark.gpu
def test_draws_are_the_same_on_a_gpu() -> None:
    indices = torch.arange(1000)
    there = uniform_draws(indices.cuda(), 3, seed=4, epoch=1)
    assert torch.equal(there.cpu(), uniform_draws(indices, 3, seed=4, epoch=1))


# Changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [Flip(), CropFlip()])
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_type_stay(augment: Augmentation, channels: int) -> None:
    images = images_of(channels=channels)
    changed = augment(images, draws_of(columns=augment.num_draws))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("augment", [Flip(), CropFlip()])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_layout_in_memory_changes_nothing(augment: Augmentation, channels: int) -> None:
    images, draws = images_of(channels=channels), draws_of(columns=augment.num_draws)
    # as the loader's batches come: (B, H, W, C) in memory
    last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(augment(images, draws), augment(last, draws))


@pytest.mark.parametrize("augment", [Flip(), CropFlip()])
def test_an_image_is_changed_alike_in_any_batch(augment: Augmentation) -> None:
    images, draws = images_of(), draws_of(columns=augment.num_draws)
    together = augment(images, draws)
    alone = [augment(images[i : i + 1], draws[i : i + 1]) for i in range(len(images))]
    assert torch.equal(together, torch.cat(alone))


def test_flip_mirrors_about_half() -> None:
    images = images_of(400)
    flipped = Flip(p=0.5)(images, draws_of(400, 1))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert 150 < mirrored.sum() < 250


def test_flip_never_and_always() -> None:
    images = images_of()
    assert torch.equal(Flip(p=0)(images, draws_of(columns=1)), images)
    assert torch.equal(Flip(p=1)(images, draws_of(columns=1)), images.flip(3))


def test_crop_flip_without_a_shift_never_and_always() -> None:
    images = images_of()
    assert torch.equal(CropFlip(padding_fraction=0, p=0)(images, draws_of()), images)
    assert torch.equal(CropFlip(padding_fraction=0, p=1)(images, draws_of()), images.flip(3))


def padded_cropped_flipped(
    image: NDArray[np.uint8], draws: NDArray[np.float32], fraction: float, p: float
) -> NDArray[np.uint8]:
    """CropFlip of one (C, H, W) image, the long way: pad with reflection, crop, flip."""
    _, height, width = image.shape
    pad_rows, pad_columns = round(height * fraction), round(width * fraction)
    padded = np.pad(
        image, ((0, 0), (pad_rows, pad_rows), (pad_columns, pad_columns)), mode="reflect"
    )
    top = int(draws[0] * (2 * pad_rows + 1))
    left = int(draws[1] * (2 * pad_columns + 1))
    cropped = padded[:, top : top + height, left : left + width]
    return cropped[..., ::-1] if draws[2] < p else cropped


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("fraction", "p"), [(0.125, 0.5), (0.4, 0.5), (0.125, 0.0), (0.125, 1.0)])
def test_crop_flip_is_pad_crop_flip(channels: int, fraction: float, p: float) -> None:
    images, draws = images_of(channels=channels), draws_of()
    draws[0], draws[1] = 0, 1 - 2.0**-24  # the ends of the range
    expected = [
        padded_cropped_flipped(image.numpy(), draw.numpy(), fraction, p)
        for image, draw in zip(images, draws, strict=True)
    ]
    changed = CropFlip(padding_fraction=fraction, p=p)(images, draws)
    np.testing.assert_array_equal(changed.numpy(), np.stack(expected))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 5)])
def test_crop_flip_of_tiny_images_shows_only_their_pixels(shape: tuple[int, int]) -> None:
    images = images_of(height=shape[0], width=shape[1])
    changed = CropFlip(padding_fraction=2.0)(images, draws_of())
    for before, after in zip(images, changed, strict=True):
        for channel in range(3):
            assert set(after[channel].unique().tolist()) <= set(before[channel].unique().tolist())
