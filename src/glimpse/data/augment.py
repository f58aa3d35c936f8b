"""Augmentation: each image of a batch draws its own, on the device, in training only.

The draws are a hash of (seed, epoch, index of the image): they do not depend on the batch an image
falls into, on the number of processes, or on where a run was interrupted. An augmentation maps
(B, C, H, W) uint8 images to the same shape and type.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


class Augmentation(ABC):
    """A random change of images that keeps their labels."""

    num_draws: int  # uniform numbers that each image needs

    @abstractmethod
    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change (B, C, H, W) uint8 images by their draws, (B, num_draws) in [0, 1)."""


class Flip(Augmentation):
    """Mirror left and right with probability `p`."""

    num_draws = 1

    def __init__(self, *, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        flipped = (draws[:, 0] < self.p).view(-1, 1, 1, 1)
        return torch.where(flipped, images.flip(3), images)


class CropFlip(Augmentation):
    """Shift by up to `padding_fraction` of each side, the border mirrored, then flip.

    The usual crop of CIFAR: 4 pixels of 32 (He et al. 2016, Deep Residual Learning, section 4.2),
    with mirrored in place of black borders.
    """

    num_draws = 3

    def __init__(self, *, padding_fraction: float = 0.125, p: float = 0.5) -> None:
        self.padding_fraction = padding_fraction
        self.p = p

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        size, channels, height, width = images.shape
        rows = _shifted(height, self.padding_fraction, draws[:, 0])  # (B, H)
        columns = _shifted(width, self.padding_fraction, draws[:, 1])  # (B, W)
        flipped = (draws[:, 2:3] < self.p).to(rows.dtype)
        columns = columns + flipped * (columns.flip(1) - columns)
        image = torch.arange(size, device=images.device).view(-1, 1, 1) * (height * width)
        pixels = image + rows[:, :, None] * width + columns[:, None, :]  # (B, H, W)
        flat = images.permute(0, 2, 3, 1).reshape(-1, channels)  # free for channels-last batches
        moved = flat.index_select(0, pixels.view(-1)).view(size, height, width, channels)
        return moved.permute(0, 3, 1, 2)


def _shifted(side: int, fraction: float, draw: Tensor) -> Tensor:
    """For each draw, which pixel of a side of `side` pixels lands where: (B, side) int64."""
    reach = min(round(side * fraction), side - 1)  # a mirror shows no more
    shift = (draw * (2 * reach + 1)).long() - reach  # uniform over -reach … reach
    position = torch.arange(side, device=draw.device) + shift[:, None]
    position = position.abs()  # mirror at the first pixel …
    return (side - 1) - (side - 1 - position).abs()  # … and at the last


def uniform_draws(indices: Tensor, num_draws: int, *, seed: int, epoch: int) -> Tensor:
    """Numbers in [0, 1) that depend on (seed, epoch, index) and nothing else.

    Args:
        indices: (B,) int64 numbers of the images.
        num_draws: D, numbers for each image.
        seed: the run's seed.
        epoch: counts from 0.

    Returns:
        (B, D) float32 on the device of `indices`; 24 bits of a twice-applied 32-bit finaliser of
        MurmurHash3 (Appleby 2011) over the index and a key for each column.
    """
    keys = np.random.SeedSequence([seed, epoch]).generate_state(2 * num_draws).astype(np.int64)
    first, second = torch.from_numpy(keys.reshape(2, 1, num_draws)).to(indices.device)
    mixed = _finalise(_finalise((indices[:, None] + first) & _MASK) ^ second)
    return (mixed >> 8).float() * 2.0**-24


def _finalise(value: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 on 32-bit numbers held in int64; overflow wraps as it should."""
    value = value ^ (value >> 16)
    value = (value * 0x85EBCA6B) & _MASK
    value = value ^ (value >> 13)
    value = (value * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)
