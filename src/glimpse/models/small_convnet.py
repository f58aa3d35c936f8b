"""A minimal convnet of one convolution and one linear layer.

Source: P. Chodrow, Machine Learning Notes, ch. 13: 1 -> 4 channels, 5×5, then 2304 -> 26 on 28×28
images; 60,034 parameters.
"""

from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.layers.image_size import require, valid


class SmallConvNet(nn.Module):
    """(B, C, H, W) to logits (B, num_classes), for images of 5×5 or larger."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        height, width = require(spec, [valid(5)], "small_convnet")
        self.features = nn.Sequential(
            nn.Conv2d(spec.channels, 4, 5), nn.ReLU(inplace=True), nn.Flatten()
        )
        self.head = nn.Linear(4 * height * width, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
