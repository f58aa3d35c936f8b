"""Shifts and mirrors move pixels, and change none."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glimpse.data.augment.flips import AlternatingFlip, CropFlip, Flip
from noise import draws_of, noise


def test_flip_mirrors_about_half() -> None:
    images = noise(400)
    flipped = Flip(p=0.5)(images, draws_of(400))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert 150 < mirrored.sum() < 250


def test_flip_never_and_always() -> None:
    images = noise()
    assert torch.equal(Flip(p=0)(images, draws_of()), images)
    assert torch.equal(Flip(p=1)(images, draws_of()), images.flip(3))


def test_crop_flip_without_a_shift_never_and_always() -> None:
    images = noise()
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
    images = noise(400, channels)
    expected = [
        padded_cropped_flipped(image.numpy(), draw.numpy(), fraction, p)
        for image, draw in zip(images, draws_of(400).uniform(3).T, strict=True)
    ]
    changed = CropFlip(padding_fraction=fraction, p=p)(images, draws_of(400))
    np.testing.assert_array_equal(changed.numpy(), np.stack(expected))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 5)])
def test_crop_flip_of_tiny_images_shows_only_their_pixels(shape: tuple[int, int]) -> None:
    images = noise(height=shape[0], width=shape[1])
    changed = CropFlip(padding_fraction=2.0)(images, draws_of())
    for before, after in zip(images, changed, strict=True):
        for channel in range(3):
            assert set(after[channel].unique().tolist()) <= set(before[channel].unique().tolist())


def test_alternating_flip_mirrors_half_and_then_the_others() -> None:
    images = noise(400)
    augment = AlternatingFlip(padding_fraction=0)
    epochs = [augment(images, draws_of(400, epoch=epoch)) for epoch in range(4)]
    mirrored = (epochs[0] == images.flip(3)).flatten(1).all(1)
    assert 150 < mirrored.sum() < 250
    assert torch.equal(epochs[1], epochs[0].flip(3))
    assert torch.equal(epochs[2], epochs[0])
    assert torch.equal(epochs[3], epochs[1])


def test_alternating_flip_shifts_anew_in_each_epoch() -> None:
    images = noise()
    augment = AlternatingFlip()
    first, third = (augment(images, draws_of(epoch=epoch)) for epoch in (0, 2))
    assert not torch.equal(first, third)
