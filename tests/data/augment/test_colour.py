"""Colour jitter against torchvision's steps, one after the other."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional

from glimpse.data.augment.colour import ColourJitter, jittered
from noise import draws_of, photos


def one(images: Tensor, value: float) -> Tensor:
    return torch.full((len(images),), value)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factors", [(0.8, 0.7, 0.5), (0.9, 1.1, 1.2), (1.1, 0.6, 0.0)])
def test_factors_are_torchvisions(channels: int, factors: tuple[float, float, float]) -> None:
    images = photos(channels) // 2 + 50  # nothing is cut off on the way
    brightness, contrast, saturation = factors
    expected = functional.adjust_brightness(images / 255, brightness)
    expected = torch.stack([functional.adjust_contrast(image, contrast) for image in expected])
    expected = 255 * functional.adjust_saturation(expected, saturation)
    changed = jittered(images, *(one(images, f) for f in factors), one(images, 0))
    assert (changed.float() - expected).abs().max() < 0.6


def test_hue_turns_red_to_green_to_blue_and_keeps_brightness_and_grey() -> None:
    flat = torch.tensor([[150, 100, 100], [90, 90, 90]], dtype=torch.uint8)[:, :, None, None]

    def turned(part: float) -> Tensor:
        return jittered(flat, one(flat, 1), one(flat, 1), one(flat, 1), one(flat, part))

    for part, strongest in ((1 / 3, 1), (2 / 3, 2), (1.0, 0)):
        assert turned(part)[0].flatten().argmax() == strongest
        assert torch.equal(turned(part)[1], flat[1])
        luma = functional.rgb_to_grayscale(turned(part))
        assert (luma.int() - functional.rgb_to_grayscale(flat).int()).abs().max() <= 1
    assert torch.equal(turned(1.0), flat)


def test_factors_are_drawn_from_their_ranges() -> None:
    grey = torch.full((2000, 3, 1, 1), 100, dtype=torch.uint8)
    only = {"contrast": 0.0, "saturation": 0.0, "hue": 0.0, "padding_fraction": 0.0}
    changed = ColourJitter(brightness=0.4, **only)(grey, draws_of(2000))[:, 0].float()
    assert 60 <= changed.min() < 62
    assert 138 < changed.max() <= 140
    assert abs(changed.mean() - 100) < 2
