"""The baseline: multinomial logistic regression, one linear layer on the pixels.

Source: P. Chodrow, Machine Learning Notes, ch. 13 (784 -> 26: 20,410 parameters).
"""

import math

from torch import Tensor, nn

from glimpse.data.spec import ImageSpec


class Linear(nn.Module):
    """Flatten the image and apply one linear layer: (B, C, H, W) to logits (B, num_classes)."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(spec.shape), spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits
