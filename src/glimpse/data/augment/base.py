"""What every augmentation is, what it draws from, and how it reads pixels.

Each image of a batch draws its own change, on the device, in training only. The draws are a hash of
(seed, epoch, index of the image): they do not depend on the batch an image falls into, on the
number of processes, or on where a run was interrupted.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_MASK = 0xFFFFFFFF


class Draws:
    """Uniform numbers in [0, 1) for each image of a batch, new ones with each call.

    Args:
        indices: (B,) int64 numbers of the images.
        seed: the run's seed.
        epoch: counts from 0.
    """

    def __init__(self, indices: Tensor, *, seed: int, epoch: int) -> None:
        self.indices = indices
        self.seed = seed
        self.epoch = epoch
        self._num_calls = 0

    def uniform(self, num: int) -> Tensor:
        """(num, B) float32 on the device of the indices: others in every epoch."""
        return self._next(num, self.epoch, 0)

    def fixed(self, num: int) -> Tensor:
        """(num, B) float32 likewise: the same in every epoch."""
        return self._next(num, 0, 1)

    def _next(self, num: int, epoch: int, fixed: int) -> Tensor:
        """24 bits of a twice-applied 32-bit finaliser of MurmurHash3 (Appleby 2011) over the index
        and a key for each column."""
        key = np.random.SeedSequence([self.seed, epoch, self._num_calls, fixed])
        self._num_calls += 1
        words = key.generate_state(2 * num).astype(np.int64).reshape(2, num, 1)
        first, second = torch.from_numpy(words).to(self.indices.device)
        mixed = _finalise(_finalise((self.indices + first) & _MASK) ^ second)
        return (mixed >> 8).float() * 2.0**-24


def _finalise(value: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 on 32-bit numbers held in int64; overflow wraps as it should."""
    value = value ^ (value >> 16)
    value = (value * 0x85EBCA6B) & _MASK
    value = value ^ (value >> 13)
    value = (value * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


class Augmentation(ABC):
    """A random change of images that keeps their labels."""

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Change (B, C, H, W) uint8 images; shape and type stay."""

    def sized(self, images: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
        """Images as stored, changed, at (height, width) pixels."""
        return self(resized(images, size), draws)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) uint8 images at (height, width) pixels: bilinear, averaging where it shrinks."""
    if images.shape[-2:] == size:
        return images
    if images.is_cuda:  # which does not average bytes
        return to_bytes(F.interpolate(images.float(), size, mode="bilinear", antialias=True))
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def to_bytes(images: Tensor) -> Tensor:
    """To the nearest of 0 … 255."""
    return images.round().clamp_(0, 255).to(torch.uint8)


def picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images made of their own pixels, in one gather.

    Args:
        images: (B, C, H, W).
        rows: which row each pixel comes from, int64, to broadcast to (B, H, W).
        columns: which column.
    """
    size, channels, height, width = images.shape
    image = torch.arange(size, device=images.device).view(-1, 1, 1)
    pixels = (image * height + rows) * width + columns  # (B, H, W)
    flat = images.permute(0, 2, 3, 1).reshape(-1, channels)  # free for channels-last batches
    moved = flat.index_select(0, pixels.view(-1)).view(size, height, width, channels)
    return moved.permute(0, 3, 1, 2)


def looked_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value of (B, C, H, W) images, whole numbers from 0 to 255 of any type, by its entry
    in (B, C, 256) tables; (B, 1, 256) are for all channels."""
    values = images.reshape(*tables.shape[:2], -1).long()
    return tables.gather(2, values).view(images.shape)
