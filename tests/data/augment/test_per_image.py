"""Transforms of torchvision and of a user's own: one image at a time, with draws of (seed, epoch, index)."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms import v2

from glimpse.data.augment.per_image import PerImage
from glimpse.errors import UserError
from noise import draws_of, noise

JITTER = v2.ColorJitter(brightness=0.5, hue=0.2)


class FromEveryGenerator(nn.Module):
    """Draws from torch, NumPy and Python."""

    def forward(self, image: Tensor) -> Tensor:
        value = torch.rand(()) + np.random.rand() + random.random()
        return (image.float() * value / 3).to(torch.uint8)


@pytest.mark.parametrize(
    "transform",
    [
        JITTER,
        v2.RandomHorizontalFlip(),
        v2.RandAugment(),
        v2.RandomResizedCrop(9),
        v2.GaussianNoise(),  # takes floats alone
        v2.RandomApply([v2.GaussianNoise()], p=0.1),  # and this one only in some draws
        transforms.RandomErasing(p=1.0),
        FromEveryGenerator(),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_an_image_is_changed_alike_in_any_batch_and_epoch_by_epoch(transform: nn.Module) -> None:
    images = noise()

    def changed(rows: slice, epoch: int) -> Tensor:
        draws = draws_of(40, seed=2, epoch=epoch)
        draws.indices = draws.indices[rows]
        return PerImage(transform, "mine").sized(images[rows], (12, 16), draws)

    together = changed(slice(0, 40), 1)
    assert together.shape == (40, 3, 12, 16)
    assert together.dtype == torch.uint8
    assert torch.equal(changed(slice(7, 9), 1), together[7:9])
    assert not torch.equal(together, images)
    assert not torch.equal(changed(slice(0, 40), 2), together)


def test_floats_from_0_to_1_are_as_good_as_bytes() -> None:
    scaled = v2.Compose([JITTER, v2.ToDtype(torch.float32, scale=True)])
    images = noise()
    changed = [PerImage(transform, "mine")(images, draws_of()) for transform in (JITTER, scaled)]
    assert torch.equal(*changed)


def test_the_run_draws_as_if_nothing_had_happened() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    expected = (torch.rand(()), random.random(), np.random.rand())
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    PerImage(JITTER, "mine")(noise(), draws_of())
    assert (torch.rand(()), random.random(), np.random.rand()) == expected


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (v2.CutMix(num_classes=3), "augment mine was given one image, 3×12×16 uint8"),
        (v2.Grayscale(1), "it returned 1×12×16 of uint8"),
        (
            v2.ToDtype(torch.float32),
            r"leave out Normalize, and write ToDtype\(torch.float32, scale=True",
        ),
        (v2.RandomCrop(99), "Required crop size"),
        (nn.Linear(2, 2), "augment mine was given one image"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_transform_of_one_image_is_named(transform: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        PerImage(transform, "mine")(noise(), draws_of())
    assert "\n" not in str(error.value)


def test_normalising_is_left_to_the_data() -> None:
    with pytest.raises(UserError, match=r"type data\.normalize=dataset"):
        PerImage(v2.Normalize([0.5], [0.5]), "mine")
    inside = v2.Compose([v2.RandomHorizontalFlip(), v2.Compose([v2.Normalize([0.5], [0.5])])])
    with pytest.raises(UserError, match=r"type data\.normalize=dataset"):
        PerImage(inside, "mine")


class Normalises(nn.Module):
    """Takes floats alone, and says nowhere that it normalises."""

    def forward(self, image: Tensor) -> Tensor:
        if image.dtype == torch.uint8:
            raise TypeError("floats, please")
        return (image - 0.45) / 0.22


def test_values_far_from_those_of_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"it returned values from -2\S* to 2\S*, expected 0 to 1"):
        PerImage(Normalises(), "mine")(noise(), draws_of())
