"""The convnet of the README's main command, plain or with batch norm and dropout.

Source: S. Keydana, Deep Learning and Scientific Computing with R torch, ch. 15: five 3×3
convolutions, 3 -> 64 -> 128 -> 256 -> 512 -> 1024, and a classifier of 1024 -> 1024 -> 1024 ->
classes; 8,574,792 parameters on Tiny ImageNet. The batch norm and dropout of the later chapter are
options.

Two differences from the text leave the output unchanged: ReLU follows max pooling, which computes
the same function on a quarter of the values, and a pooling that would leave nothing is omitted, so
that images down to 8×8 work. A third difference changes it: weights are initialised as in He et al.
2015 (Delving Deep into Rectifiers, equation 10). With PyTorch's default, the signal shrinks by a
factor of three in every layer. After eight layers, images differ by a ten-thousandth, and with Adam
at 1e-3 the units of a layer often die before the network learns anything (with seeds 0 and 1 on
Tiny ImageNet, accuracy stayed at chance for the whole first epoch).
"""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.layers.image_size import SMALLEST_OF_CONVNET, require
from glimpse.layers.patch_conv import PatchConv2d


class ConvNet(nn.Module):
    """(B, C, H, W) to logits (B, num_classes), for images of 8×8 or larger.

    Args:
        spec: The spec of the images.
        widths: Output channels of each convolution; 2×2 max pooling follows all but the last.
        hidden: Units of the classifier's two hidden layers.
        batch_norm: Whether batch norm follows each convolution and hidden layer.
        dropout: Probability of dropping a channel after each block, or a hidden unit.
    """

    def __init__(
        self,
        spec: ImageSpec,
        *,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        hidden: int = 1024,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require(spec, [lambda side: side // SMALLEST_OF_CONVNET], "convnet")
        side = min(spec.height, spec.width)
        channels = [spec.channels, *widths]
        blocks: list[nn.Module] = []
        for i, (num_inputs, num_outputs) in enumerate(itertools.pairwise(channels)):
            # A bias before batch norm has no effect.
            blocks.append(PatchConv2d(num_inputs, num_outputs, bias=not batch_norm))
            if i < len(widths) - 1 and side >= 2:
                blocks.append(nn.MaxPool2d(2))
                side //= 2
            if batch_norm:
                blocks.append(nn.BatchNorm2d(num_outputs))
            blocks.append(nn.ReLU(inplace=True))
            if dropout:
                blocks.append(nn.Dropout2d(dropout))
        self.features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        layers: list[nn.Module] = []
        for num_inputs in (widths[-1], hidden):
            layers.append(nn.Linear(num_inputs, hidden, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm1d(hidden))
            layers.append(nn.ReLU(inplace=True))
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.classifier = nn.Sequential(*layers, nn.Linear(hidden, spec.num_classes))
        for module in (*self.features, *self.classifier[:-1]):
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)  # (B, widths[-1])
        logits: Tensor = self.classifier(features)
        return logits
