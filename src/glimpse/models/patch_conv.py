"""A 3×3 convolution as one matrix product, where that is faster: on a CPU, in bf16, on small maps.

oneDNN's weight gradient of 512 -> 1024 channels on 4×4 maps takes several times what its arithmetic
needs. Nine shifted copies of the map beside each other and one matrix product are the same function
(Chellapilla et al. 2006, High Performance Convolutional Neural Networks, section 3.1). On larger maps
the copies cost more than they save, so there, and in fp32 and on GPUs, it is PyTorch's convolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_PIXELS = 16  # of a map; on 8×8 the product is slower already


class PatchConv2d(nn.Conv2d):
    """3×3, stride 1, padding 1, with the parameters and checkpoint keys of `nn.Conv2d`."""

    def __init__(self, num_inputs: int, num_outputs: int, *, bias: bool = True) -> None:
        super().__init__(num_inputs, num_outputs, 3, padding=1, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_inputs, H, W) to (B, num_outputs, H, W)."""
        _, _, height, width = images.shape
        in_bf16_on_cpu = images.device.type == "cpu" and images.dtype == torch.bfloat16
        if not in_bf16_on_cpu or height * width > MAX_PIXELS:
            return super().forward(images)
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (B, H+2, W+2, C)
        shifted = [
            padded[:, row : row + height, column : column + width]
            for row in range(3)
            for column in range(3)
        ]
        patches = torch.cat(shifted, 3)  # (B, H, W, 9·C)
        weight = self.weight.permute(0, 2, 3, 1).flatten(
            1
        )  # (num_outputs, 9·C), free channels-last
        return F.linear(patches, weight, self.bias).permute(0, 3, 1, 2)
