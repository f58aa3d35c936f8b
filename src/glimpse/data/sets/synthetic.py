"""Generated images of any shape, learnable and without a file: to try a model, and for tests.

Each class is a smooth random pattern; an image is its class's pattern at a random brightness, plus
noise. The patterns and images depend on `data.split_seed` alone.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Source
from glimpse.errors import UserError


class Synthetic(ImageDataModule):
    """Training, validation and test images, the latter two of equal number.

    Args:
        shape: (C, H, W) of an image; C is 1 or 3.
        num_classes: patterns.
        num_train: training images.
        num_val: validation images, and as many test images.
        **common: arguments of every dataset.
    """

    embedded: ClassVar[bool] = True

    def __init__(
        self,
        *,
        shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        num_train: int = 2000,
        num_val: int = 500,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            raise UserError(f"data.shape={list(shape)}: expected [C,H,W] with 1 or 3 channels")
        self.shape = tuple(shape)
        self.num_classes = num_classes
        self.num_train = num_train
        self.num_val = num_val

    def source_files(self) -> Iterable[Path]:
        """None: the images are made."""
        return ()

    def read(self) -> Source:
        """Generate all parts."""
        random = np.random.default_rng(self.split_seed)
        channels, height, width = self.shape
        coarse = random.uniform(-1, 1, (self.num_classes, 4, 4, channels))
        patterns = _enlarged(coarse, height, width)

        def part(size: int) -> Arrays:
            labels = np.arange(size, dtype=np.int64) % self.num_classes
            random.shuffle(labels)
            brightness = random.uniform(40, 80, (size, 1, 1, 1))
            noise = random.normal(0, 30, (size, height, width, channels))
            pixels = 128 + brightness * patterns[labels] + noise
            return Arrays(pixels.clip(0, 255).astype(np.uint8), labels)

        names = tuple(f"class {i}" for i in range(self.num_classes))
        return Source(names, part(self.num_train), part(self.num_val), part(self.num_val))


def _enlarged(coarse: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear enlargement of (N, h, w, C) patterns to (N, height, width, C)."""

    def weights(small: int, large: int) -> NDArray[np.float64]:
        position = np.linspace(0, small - 1, large)
        kernel: NDArray[np.float64] = np.maximum(
            0, 1 - np.abs(position[:, None] - np.arange(small))
        )
        return kernel

    enlarged: NDArray[np.float64] = np.einsum(
        "nhwc,Hh,Ww->nHWc",
        coarse,
        weights(coarse.shape[1], height),
        weights(coarse.shape[2], width),
    )
    return enlarged
