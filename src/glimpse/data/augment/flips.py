"""Mirrored and shifted images: what nearly every recipe for small images begins with."""

import torch
from torch import Tensor

from glimpse.data.augment.base import Augmentation, Draws, picked


class Flip(Augmentation):
    """Mirror left and right with probability `p`."""

    def __init__(self, *, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        [flip] = draws.uniform(1)
        return torch.where((flip < self.p).view(-1, 1, 1, 1), images.flip(3), images)


class CropFlip(Augmentation):
    """Shift by up to `padding_fraction` of each side, the border mirrored, then flip.

    The usual crop of CIFAR: 4 pixels of 32 (He et al. 2016, Deep Residual Learning, section 4.2),
    with mirrored in place of black borders.
    """

    def __init__(self, *, padding_fraction: float = 0.125, p: float = 0.5) -> None:
        self.padding_fraction = padding_fraction
        self.p = p

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        row, column, flip = draws.uniform(3)
        return _moved(images, row, column, flip < self.p, self.padding_fraction)


class AlternatingFlip(Augmentation):
    """Shift as CropFlip does, and mirror each image in every second epoch.

    Which half is mirrored in the first epoch is drawn; two epochs then show each image both ways,
    where random flips show a quarter of them the same way thrice in three epochs. Source: K. Jordan
    2024, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, section 3.6.
    """

    def __init__(self, *, padding_fraction: float = 0.125) -> None:
        self.padding_fraction = padding_fraction

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        [flip] = draws.fixed(1)
        row, column = draws.uniform(2)
        flipped = (flip < 0.5) ^ (draws.epoch % 2 == 1)
        return _moved(images, row, column, flipped, self.padding_fraction)


def _moved(
    images: Tensor, row: Tensor, column: Tensor, flipped: Tensor, padding_fraction: float
) -> Tensor:
    """Shift by two draws (B,), then mirror where `flipped` (B,) says."""
    rows = _shifted(images.shape[2], padding_fraction, row)  # (B, H)
    columns = _shifted(images.shape[3], padding_fraction, column)  # (B, W)
    columns = columns + flipped[:, None].to(columns.dtype) * (columns.flip(1) - columns)
    return picked(images, rows[:, :, None], columns[:, None, :])


def _shifted(side: int, fraction: float, draw: Tensor) -> Tensor:
    """For each draw, which pixel of a side of `side` pixels lands where: (B, side) int64."""
    reach = min(round(side * fraction), side - 1)  # a mirror shows no more
    shift = (draw * (2 * reach + 1)).long() - reach  # uniform over -reach … reach
    position = torch.arange(side, device=draw.device) + shift[:, None]
    position = position.abs()  # mirror at the first pixel …
    return (side - 1) - (side - 1 - position).abs()  # … and at the last
