"""Cutout: hide a square of each image.

Source: T. DeVries, G. W. Taylor 2017, Improved Regularization of Convolutional Neural Networks with
Cutout, section 3. The square is filled with the mean colour of the image. The paper uses the mean
colour of the dataset, which an augmentation does not know.
"""

import torch
from torch import Tensor

from glimpse.data.augment.base import Draws, to_bytes
from glimpse.data.augment.flips import CropFlip


class Cutout(CropFlip):
    """CropFlip, then hide a rectangle that spans `side_fraction` of each side.

    Its centre is drawn from all pixels, so part of it may lie outside the image, as in the paper,
    whose square spans 16 of CIFAR-10's 32 pixels.
    """

    def __init__(
        self, *, side_fraction: float = 0.5, padding_fraction: float = 0.125, p: float = 0.5
    ) -> None:
        super().__init__(padding_fraction=padding_fraction, p=p)
        self.side_fraction = side_fraction

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        centre = draws.uniform(2)
        hidden = rectangles(images, centre, torch.full_like(centre[0], self.side_fraction))
        pixels = images.shape[2] * images.shape[3]
        mean = images.sum((2, 3), keepdim=True) / pixels  # of integers: independent of the order
        return torch.where(hidden, to_bytes(mean), images)


def rectangles(images: Tensor, centre: Tensor, side_fraction: Tensor) -> Tensor:
    """Return masks (B, 1, H, W) that are True in a rectangle of each image, clipped at the border.

    Args:
        images: (B, C, H, W).
        centre: (2, B) in [0, 1), as fractions of height and width.
        side_fraction: (B,) in [0, 1], the fraction of each side that the rectangle spans.
    """
    rows = _within(images.shape[2], centre[0], side_fraction)  # (B, H)
    columns = _within(images.shape[3], centre[1], side_fraction)  # (B, W)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _within(side: int, centre: Tensor, fraction: Tensor) -> Tensor:
    """Mark the pixels of a side in an interval that spans a `fraction` of it: (B, side) bool."""
    length = (fraction * side).round().long()
    first = (centre * side).long() - length // 2
    position = torch.arange(side, device=centre.device)
    return (position >= first[:, None]) & (position < (first + length)[:, None])
