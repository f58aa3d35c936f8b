"""TrivialAugment against torchvision's operations, image by image."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from glimpse.data.augment.trivial import NUM_LEVELS, Op, TrivialAugment, applied
from noise import draws_of, noise, photos

THEIR_NAMES = {op: op.name.title().replace("_", "") for op in Op} | {Op.COLOUR: "Color"}
UNSIGNED = {Op.POSTERIZE, Op.SOLARIZE}


def theirs(image: Tensor, op: Op, strength: float) -> Tensor:
    """What torchvision's TrivialAugmentWide does to one image at the same strength."""
    most = {
        Op.SHEAR_X: 0.99, Op.SHEAR_Y: 0.99, Op.TRANSLATE_X: 32, Op.TRANSLATE_Y: 32, Op.ROTATE: 135,
    }.get(op, 0.99)  # fmt: skip
    magnitude = most * strength
    if op is Op.POSTERIZE:
        magnitude = 8 - round(6 * strength)
    if op is Op.SOLARIZE:
        magnitude = 255 - 255 * strength
    return _apply_op(image, THEIR_NAMES[op], magnitude, InterpolationMode.NEAREST, None)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name)
def test_operation_is_torchvisions(op: Op, channels: int) -> None:
    images = torch.cat([photos(channels, 40, 36), noise(2, channels, 40, 36)])
    for level in range(0, NUM_LEVELS, 3):
        for sign in (1,) if op in UNSIGNED else (1, -1):
            strength = sign * level / (NUM_LEVELS - 1)
            expected = torch.stack([theirs(image, op, strength) for image in images])
            ops, strengths = torch.full((10,), op), torch.full((10,), strength)
            difference = (applied(images, ops, strengths).int() - expected.int()).abs()
            if Op.SHEAR_X <= op <= Op.ROTATE:  # a tie may go to the other neighbour
                assert (difference > 0).float().mean() < 0.005
            else:  # torchvision cuts fractions off
                assert difference.max() <= 1


def test_each_image_gets_its_own_operation() -> None:
    images = photos().repeat(7, 1, 1, 1)[:42]
    ops = torch.arange(42) % 14
    strengths = torch.linspace(-1, 1, 42)
    together = applied(images, ops, strengths)
    for row in range(42):
        alone = applied(images[row : row + 1], ops[row : row + 1], strengths[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_all_operations_are_drawn_about_equally_often() -> None:
    """Of images on which nothing but an inversion or a darkening shows."""
    black = torch.zeros(7000, 3, 4, 4, dtype=torch.uint8)
    changed = TrivialAugment(padding_fraction=0, p=0)(black, draws_of(7000))
    inverted = (changed == 255).flatten(1).all(1)
    # solarize at its strongest, whose threshold is 0: one of 14 operations, one of 31 levels
    assert 4 <= inverted.sum() <= 32


@pytest.mark.parametrize("shape", [(1, 1), (2, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiny_images_survive(shape: tuple[int, int], channels: int) -> None:
    images = noise(14, channels, *shape)
    changed = applied(images, torch.arange(14), torch.full((14,), 0.7))
    assert changed.shape == images.shape


def test_equalize_and_contrast_of_one_colour_change_nothing() -> None:
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    ops = torch.tensor([Op.EQUALIZE, Op.AUTO_CONTRAST])
    assert torch.equal(applied(flat, ops, torch.ones(2)), flat)
