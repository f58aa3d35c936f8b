"""Generated, learnable images of any shape, for tests and for trying a model without files.

Each class has a smooth random pattern. An image is the pattern of its class at a random brightness,
plus noise. The patterns and images depend only on `data.split_seed`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Source, require_shape


class Synthetic(ImageDataModule):
    """Generated training, validation and test images.

    Args:
        shape: (C, H, W) of an image; C is 1 or 3.
        num_classes: Number of classes.
        num_train: Number of training images.
        num_val: Number of validation images, and also of test images.
        **common: Arguments of every dataset.
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
        require_shape(shape)
        self.shape = tuple(shape)
        self.num_classes = num_classes
        self.num_train = num_train
        self.num_val = num_val

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
    """Enlarge (N, h, w, C) patterns bilinearly to (N, height, width, C)."""
    planes = torch.from_numpy(coarse).permute(0, 3, 1, 2)
    enlarged = F.interpolate(planes, (height, width), mode="bilinear", align_corners=True)
    return enlarged.permute(0, 2, 3, 1).numpy()
