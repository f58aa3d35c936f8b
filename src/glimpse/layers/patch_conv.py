"""A 3×3 convolution that uses matrix products where they are faster: on a CPU, for many channels on
small maps.

oneDNN's weight gradient for 512 -> 1024 channels on 4×4 maps takes several times as long as its
arithmetic requires. Concatenating nine shifted copies of the map and multiplying once computes the
same function (Chellapilla et al. 2006, High Performance Convolutional Neural Networks, section
3.1). In bf16, the whole layer is computed this way on maps of at most 16 pixels. In fp32, only the
weight gradient is, from 512×512 kernels on, because oneDNN's other two products are fast. (For the
layer above and 250 images, this reduces the time from 906 ms to 370 ms on two cores of an AMD Zen
3.) In all other cases, and on GPUs, the layer uses PyTorch's convolution: on large maps the copies
cost more than they save.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

MAX_PIXELS = 16  # per map in bf16; on 8×8 maps the matrix product is already slower
MAX_PIXELS_FP32 = 64
MIN_KERNELS_FP32 = 512 * 512  # outputs times inputs
PATCH_VALUES = 2**22  # values gathered at a time in fp32: 16 MiB


class PatchConv2d(nn.Conv2d):
    """A 3×3 convolution, stride 1, padding 1, with the parameters and state keys of `nn.Conv2d`."""

    def __init__(self, num_inputs: int, num_outputs: int, *, bias: bool = True) -> None:
        super().__init__(num_inputs, num_outputs, 3, padding=1, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_inputs, H, W) to (B, num_outputs, H, W)."""
        num_pixels = images.shape[2] * images.shape[3]
        if images.device.type != "cpu":
            return super().forward(images)
        if images.dtype == torch.bfloat16 and num_pixels <= MAX_PIXELS:
            # (num_outputs, 9·C), a view if the weights are channels-last
            weight = self.weight.permute(0, 2, 3, 1).flatten(1)
            return F.linear(_patches(images), weight, self.bias).permute(0, 3, 1, 2)
        if (
            images.dtype == self.weight.dtype == torch.float32
            and num_pixels <= MAX_PIXELS_FP32
            and self.in_channels * self.out_channels >= MIN_KERNELS_FP32
            and self.weight.requires_grad
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        ):
            outputs: Tensor = _Convolution.apply(images, self.weight)
            return outputs if self.bias is None else outputs + self.bias[:, None, None]
        return super().forward(images)


class _Convolution(torch.autograd.Function):
    """PyTorch's convolution with a different computation of the weight gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor]:
        images, weight = ctx.saved_tensors
        to_images = None
        if ctx.needs_input_grad[0]:
            to_images = conv2d_input(images.shape, weight, slopes, padding=1)  # type: ignore[no-untyped-call]
        num_outputs, num_inputs = weight.shape[:2]
        to_weight = slopes.new_zeros(num_outputs, 9 * num_inputs)
        size = max(1, PATCH_VALUES // (9 * images[0].numel()))
        for some, above in zip(torch.split(images, size), torch.split(slopes, size), strict=True):
            by_pixel = above.permute(0, 2, 3, 1).flatten(0, 2)  # (B·H·W, num_outputs)
            to_weight.addmm_(by_pixel.T, _patches(some).flatten(0, 2))
        return to_images, to_weight.view(num_outputs, 3, 3, num_inputs).permute(0, 3, 1, 2)


def _patches(images: Tensor) -> Tensor:
    """Gather the 3×3 neighbourhood of each pixel: (B, C, H, W) to (B, H, W, 9·C)."""
    _, _, height, width = images.shape
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (B, H+2, W+2, C)
    shifted = [
        padded[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]
    return torch.cat(shifted, 3)
