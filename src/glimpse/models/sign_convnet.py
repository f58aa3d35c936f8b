"""A convnet of three convolutions with pooling, designed for Sign Language MNIST.

Source: P. Chodrow, Machine Learning Notes, ch. 13: 1 -> 100 (5×5) -> 50 (3×3) -> 50 (3×3) channels,
2×2 max pooling and ReLU after each, then 50 -> 26 on 28×28 images; 71,526 parameters.
"""

from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.layers.image_size import halve, require, valid


class SignConvNet(nn.Module):
    """(B, C, H, W) to logits (B, num_classes), for images of 24×24 or larger."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        steps = [valid(5), halve, valid(3), halve, valid(3), halve]
        height, width = require(spec, steps, "sign_convnet")
        blocks: list[nn.Module] = []
        for num_inputs, num_outputs, kernel in ((spec.channels, 100, 5), (100, 50, 3), (50, 50, 3)):
            blocks += [
                nn.Conv2d(num_inputs, num_outputs, kernel),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
        self.features = nn.Sequential(*blocks, nn.Flatten())
        self.head = nn.Linear(50 * height * width, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
