"""Preprocessing of stored pixels for a network: resize, scale to [0, 1], normalise.

The `ImageSpec` contains all parameters, so that a checkpoint or an exported network needs no
dataset to preprocess an image as in training.
"""

import torch
from torch import Tensor, nn

from glimpse.data.augment.base import resized
from glimpse.data.spec import ImageSpec


class Preprocess(nn.Module):
    """(B, C, H, W) uint8 images of any size to (B, C, height, width) float32, normalised."""

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.size = (spec.height, spec.width)
        self.is_plain = set(spec.mean) == {0.0} and set(spec.std) == {1.0}
        self.register_buffer("mean", (255 * torch.tensor(spec.mean)).view(1, -1, 1, 1))
        self.register_buffer("scale", (1 / (255 * torch.tensor(spec.std))).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.normalised(resized(images, self.size))

    def normalised(self, images: Tensor) -> Tensor:
        """Preprocess without resizing. In place, because memory access dominates on a CPU."""
        values = images.float()
        if self.is_plain:
            return values.div_(255)
        return values.sub_(self.mean).mul_(self.scale)
