"""A generated dataset of horizontal, vertical and diagonal stripes. Replace it with your own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Source

CLASSES = ("lying", "standing", "diagonal")
SIDE = 16  # pixels


class Stripes(ImageDataModule):
    """Grey images of noisy stripes.

    Args:
        num_images: The number of images, the same for each class.
        **common: The arguments of every dataset.
    """

    embedded = True  # read() draws the images, so that there are no files to look for

    def __init__(self, *, num_images: int, **common: Any) -> None:
        super().__init__(**common)
        self.num_images = num_images

    def source_files(self) -> Iterable[Path | str]:
        return []

    def read(self) -> Source:
        """Return every image; the base class divides them into training, validation and test."""
        rng = np.random.default_rng(0)
        labels = np.arange(self.num_images) % len(CLASSES)
        y, x = np.mgrid[:SIDE, :SIDE]
        directions = np.stack((y, x, x + y))[labels]  # (N, H, W)
        phases = rng.uniform(0, 2 * np.pi, (self.num_images, 1, 1))
        pixels = 128 + 60 * np.sin(directions + phases) + rng.normal(0, 30, directions.shape)
        images = np.clip(pixels, 0, 255).astype(np.uint8)[..., None]  # (N, H, W, 1)
        return Source(CLASSES, Arrays(images, labels.astype(np.int64)))
