"""The base class of augmentations, their random draws, and pixel operations that they share.

Each image in a batch is augmented independently, on the device, in training only. The draws are a
hash of (seed, epoch, index of the image). They do not depend on the batch that contains the image,
on the number of processes, or on an interruption of the run.
"""

import itertools
from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glimpse.data.transfer import sent

_MASK = 0xFFFFFFFF


class Draws:
    """Uniform numbers in [0, 1) for each image in a batch. Each call returns new ones.

    Args:
        indices: (B,) int64, the indices of the images.
        seed: The run's seed.
        epoch: The epoch, counted from 0.
    """

    def __init__(self, indices: Tensor, *, seed: int, epoch: int) -> None:
        self.indices = indices
        self.seed = seed
        self.epoch = epoch
        self._calls = itertools.count()

    def uniform(self, num: int) -> Tensor:
        """Draw (num, B) float32 on the device of the indices, different in every epoch."""
        return self._next(num, self.epoch, 0)

    def fixed(self, num: int) -> Tensor:
        """Draw (num, B) float32 on the device of the indices, the same in every epoch."""
        return self._next(num, 0, 1)

    def seeds(self) -> list[int]:
        """Draw a seed of 32 bits for each image, different in every epoch."""
        call = next(self._calls)
        keys = ([self.seed, self.epoch, call, index] for index in self.indices.tolist())
        return [int(np.random.SeedSequence(key).generate_state(1)[0]) for key in keys]

    def _next(self, num: int, epoch: int, fixed: int) -> Tensor:
        """Apply the 32-bit finaliser of MurmurHash3 (Appleby 2011) twice to the index and a key for
        each column, and use 24 bits of the result."""
        key = np.random.SeedSequence([self.seed, epoch, next(self._calls), fixed])
        words = key.generate_state(2 * num).astype(np.int64).reshape(2, num, 1)
        first, second = sent(torch.from_numpy(words), self.indices.device)
        mixed = _finalise(_finalise((self.indices + first) & _MASK) ^ second)
        return (mixed >> 8).float() * 2.0**-24


def _finalise(value: Tensor) -> Tensor:
    """Apply the finaliser of MurmurHash3 to 32-bit numbers stored as int64; overflow wraps."""
    value = value ^ (value >> 16)
    value = (value * 0x85EBCA6B) & _MASK
    value = value ^ (value >> 13)
    value = (value * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


class Augmentation(ABC):
    """A random change of images. `mixes` states whether labels become mixtures of classes too."""

    mixes: bool = False
    remark: str = ""  # a note for the user, which a run prints when it starts

    @property
    def label(self) -> str:
        """Its name in pictures and reports."""
        return type(self).__name__

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Augment (B, C, H, W) uint8 images; shape and type stay the same."""

    def sized(self, images: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
        """Augment images of the stored size and return them at (height, width) pixels."""
        return self(resized(images, size), draws)

    def batch(
        self, images: Tensor, labels: Tensor, size: tuple[int, int], draws: Draws, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch with its labels.

        Args:
            images: (B, C, H, W) uint8 of the stored size.
            labels: (B,) int64.
            size: (height, width) of the returned images in pixels.
            draws: Random draws for the images.
            num_classes: K.

        Returns:
            Images of this size, and the labels, which become (B, K) float32 probabilities if images
            are mixed.
        """
        return self.sized(images, size, draws), labels


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, H, W) images to (height, width) pixels, bilinearly with antialiasing.

    Values are integers from 0 to 255, as uint8 or float32. Resized images are uint8.
    """
    if images.shape[-2:] == size:
        return images
    # GPUs have no antialiasing for uint8, and that of a CPU is wrong for a width of 1.
    if images.device.type != "cpu" or images.dtype != torch.uint8 or size[1] == 1:
        return to_bytes(F.interpolate(images.float(), size, mode="bilinear", antialias=True))
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def to_bytes(images: Tensor) -> Tensor:
    """Round to the nearest integer and clip to 0 … 255."""
    return images.round().clamp_(0, 255).to(torch.uint8)


def picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rearrange the pixels of each image in one gather.

    Args:
        images: (B, C, H, W).
        rows: The source row of each pixel, int64, broadcastable to (B, H, W).
        columns: The source column of each pixel, likewise.
    """
    size, channels, height, width = images.shape
    image = torch.arange(size, device=images.device).view(-1, 1, 1)
    pixels = (image * height + rows) * width + columns  # (B, H, W)
    flat = images.permute(0, 2, 3, 1).reshape(-1, channels)  # a view for channels-last batches
    moved = flat.index_select(0, pixels.view(-1)).view(size, height, width, channels)
    return moved.permute(0, 3, 1, 2)


def looked_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace each value of (B, C, H, W) images by its entry in (B, C, 256) tables.

    Values are integers from 0 to 255 of any type. Tables of shape (B, 1, 256) apply to all
    channels.
    """
    values = images.reshape(*tables.shape[:2], -1).long()
    return tables.gather(2, values).view(images.shape)
