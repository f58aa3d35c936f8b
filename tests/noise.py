"""Images and draws for the tests of augmentations."""

import numpy as np
import torch
from torch import Tensor

from glimpse.data.augment.base import Draws


def noise(size: int = 40, channels: int = 3, height: int = 12, width: int = 16) -> Tensor:
    """(size, channels, height, width) uint8, every value equally likely."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, channels, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def photos(channels: int = 3, height: int = 24, width: int = 32) -> Tensor:
    """(8, channels, height, width) uint8: scikit-learn's two photographs, their middles in
    different sizes, so that edges, flat areas and colours are those of the world."""
    from sklearn.datasets import load_sample_images

    cut = []
    for photo in load_sample_images().images:
        for stride in (1, 3, 6, 10):
            rows = slice(200 - height * stride // 2, None, stride)
            columns = slice(300 - width * stride // 2, None, stride)
            cut.append(photo[rows, columns][:height, :width, :channels])
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2)


def draws_of(size: int = 40, *, seed: int = 0, epoch: int = 0) -> Draws:
    return Draws(torch.arange(size), seed=seed, epoch=epoch)
