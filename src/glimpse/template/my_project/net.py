"""A small convolutional network. Replace it with your own."""

from glimpse.data.spec import ImageSpec
from torch import Tensor, nn


class SmallNet(nn.Module):
    """(B, C, H, W) images to (B, num_classes) logits.

    Args:
        spec: The images: channels, height, width, num_classes and class_names.
        width: Channels of the convolutions.
    """

    def __init__(self, spec: ImageSpec, *, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(spec.channels, width, 5, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
