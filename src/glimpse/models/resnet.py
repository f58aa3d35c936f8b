"""Residual networks of basic blocks: ResNet-18, and ResNet-20 to 110 for small images.

Source: He, Zhang, Ren, Sun 2016, Deep Residual Learning for Image Recognition, section 4, with the
original order of convolution, norm and ReLU. `stem=small` is a 3×3 convolution without pooling, as
in the paper's CIFAR networks (section 4.2). `stem=large` is the ImageNet stem, a 7×7 convolution
with stride 2 followed by pooling.

How ours differs from the paper's CIFAR networks: where the shape changes, the shortcut is a 1×1
convolution with batch norm (option B), not subsampling with zeros for the new channels (option A).
ResNet-20 therefore has 272,474 parameters instead of 269,722 on CIFAR-10. The last norm of each
block starts at zero.

Left out: bottleneck blocks (`model=pretrained
model.architecture=resnet50 model.weights=none`).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError

STEMS = ("small", "large")


class ResNet(nn.Module):
    """(B, C, H, W) to logits (B, num_classes).

    Args:
        spec: The spec of the images.
        widths: Channels of each stage; every stage but the first halves the height and width.
        depths: Number of blocks in each stage.
        stem: "small" or "large".
        dropout: Probability of dropping a pooled feature.

    Raises:
        UserError: `widths` and `depths` differ in length, or `stem` has another value.
    """

    def __init__(
        self,
        spec: ImageSpec,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        stem: str = "small",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) or not widths:
            raise UserError(
                f"model.widths has {len(widths)} stages, but model.depths has {len(depths)}: "
                "expected the same number, at least 1"
            )
        if stem not in STEMS:
            raise UserError(f"model.stem={stem}: expected one of {', '.join(STEMS)}")
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(spec.channels, first, 3, padding=1, bias=False)
            if stem == "small"
            else nn.Conv2d(spec.channels, first, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            *([nn.MaxPool2d(3, stride=2, padding=1)] if stem == "large" else []),
        )
        stages: list[nn.Module] = []
        num_inputs = first
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                stride = 2 if block == 0 and stage > 0 else 1
                stages.append(BasicBlock(num_inputs, width, stride=stride))
                num_inputs = width
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(num_inputs, spec.num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                # Each block starts as the identity (Goyal et al. 2017, section 5.1).
                nn.init.zeros_(module.norm2.weight)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.stages(self.stem(images)))
        return logits


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut, which is a 1×1 convolution if the shape changes."""

    def __init__(self, num_inputs: int, num_outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(num_outputs)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(num_outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or num_inputs != num_outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(num_inputs, num_outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(num_outputs),
            )

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_inputs, H, W) to (B, num_outputs, H/stride, W/stride)."""
        residual = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(images)))))
        outputs: Tensor = self.relu(residual + self.shortcut(images))
        return outputs
