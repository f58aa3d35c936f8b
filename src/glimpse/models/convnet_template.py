"""A first convnet without padding: three convolutions, one linear layer.

Source: S. Keydana, Deep Learning and Scientific Computing with R torch, ch. 15: 1 -> 16 -> 32 -> 64
channels on a 1×64×64 image, 2304 -> 3; 30,211 parameters. The width of the linear layer depends on
the image size.
"""

import itertools

from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.layers.image_size import halve, require, valid


class ConvNetTemplate(nn.Module):
    """(B, C, H, W) to logits (B, num_classes), for images of 22×22 or larger."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        height, width = require(spec, 3 * [valid(3), halve], "convnet_template")
        channels = (spec.channels, 16, 32, 64)
        blocks: list[nn.Module] = []
        for num_inputs, num_outputs in itertools.pairwise(channels):
            # ReLU after pooling computes the same function on a quarter of the values.
            blocks += [
                nn.Conv2d(num_inputs, num_outputs, 3),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*blocks, nn.Flatten())
        self.head = nn.Linear(64 * height * width, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
