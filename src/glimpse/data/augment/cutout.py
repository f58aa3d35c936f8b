"""Cutout: hide a square of each image. Source: T. DeVries, G. W. Taylor 2017, Improved
Regularization of Convolutional Neural Networks with Cutout, section 3.

The square takes the image's own mean colour; the paper's takes the dataset's, which an augmentation
does not know.
"""

import torch
from torch import Tensor

from glimpse.data.augment.base import Draws, to_bytes
from glimpse.data.augment.flips import CropFlip


class Cutout(CropFlip):
    """CropFlip, then hide a rectangle of `side_fraction` of each side.

    Its centre is drawn from all pixels, so a part of it may lie outside, as in the paper, whose
    square has 16 of CIFAR-10's 32 pixels.
    """

    def __init__(
        self, *, side_fraction: float = 0.5, padding_fraction: float = 0.125, p: float = 0.5
    ) -> None:
        super().__init__(padding_fraction=padding_fraction, p=p)
        self.side_fraction = side_fraction

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        images = super().__call__(images, draws)
        centre = draws.uniform(2)
        hidden = rectangles(images, centre, torch.full_like(centre[0], self.side_fraction))
        pixels = images.shape[2] * images.shape[3]
        mean = images.sum((2, 3), keepdim=True) / pixels  # of whole numbers: in any order the same
        return torch.where(hidden, to_bytes(mean), images)


def rectangles(images: Tensor, centre: Tensor, side_fraction: Tensor) -> Tensor:
    """Masks (B, 1, H, W), True within a rectangle of each image, cut off at the border.

    Args:
        images: (B, C, H, W).
        centre: (2, B) in [0, 1), as fractions of height and width.
        side_fraction: (B,) in [0, 1], how much of each side the rectangle takes.
    """
    rows = _within(images.shape[2], centre[0], side_fraction)  # (B, H)
    columns = _within(images.shape[3], centre[1], side_fraction)  # (B, W)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _within(side: int, centre: Tensor, fraction: Tensor) -> Tensor:
    """Which of `side` pixels lie in a stretch of a `fraction` of them: (B, side) bool."""
    length = (fraction * side).round().long()
    first = (centre * side).long() - length // 2
    position = torch.arange(side, device=centre.device)
    return (position >= first[:, None]) & (position < (first + length)[:, None])
