"""A 3×3 convolution that uses matrix products where they are faster: on a CPU, for many channels on
small maps.

oneDNN's weight gradient on small maps takes several times as long as its arithmetic requires.
Concatenating nine shifted copies of the map and multiplying computes the same function
(Chellapilla et al. 2006, High Performance Convolutional Neural Networks, section 3.1). The layer
picks one of three ways, by the type of the images, the size of the map and the number of kernels:

- PyTorch's convolution, always on GPUs. On large maps the copies cost more than they save.
- PyTorch's convolution with the weight gradient as matrix products, because oneDNN's other two
  products are fast. In fp32, for 512×512 kernels and more on maps of at most 64 pixels: 512 to 1024
  channels on 4×4 maps and 250 images then take 370 ms in place of 906 ms (two cores of an AMD Zen
  3). In bf16 on a processor with AMX, for 128×256 kernels and more (docs/speed.md gives the
  speedup).
- The whole layer as one matrix product: in bf16 on maps of at most 16 pixels, unless the second
  way is taken there.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glimpse.precision import bf16_hardware

HAS_AMX = bf16_hardware("cpu") == "AMX"
MAX_PIXELS = 64  # per map; on larger ones, oneDNN's weight gradient is fast
MAX_PIXELS_WHOLE = 16  # likewise, for one product in bf16; it is already slower on 8×8 maps
MIN_KERNELS_FP32 = 512 * 512  # outputs times inputs
MIN_KERNELS_BF16 = 128 * 256
LARGE_BF16 = 256 * 512  # with more kernels, the whole layer is a product on small maps
PATCH_VALUES = 2**22  # values gathered at a time: 16 MiB in fp32


class PatchConv2d(nn.Conv2d):
    """A 3×3 convolution, stride 1, padding 1, with the parameters and state keys of `nn.Conv2d`."""

    def __init__(self, num_inputs: int, num_outputs: int, *, bias: bool = True) -> None:
        super().__init__(num_inputs, num_outputs, 3, padding=1, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, num_inputs, H, W) to (B, num_outputs, H, W)."""
        num_pixels = images.shape[2] * images.shape[3]
        if images.device.type != "cpu" or num_pixels > MAX_PIXELS:
            return super().forward(images)
        if self._weight_gradient_is_slow(images.dtype, num_pixels):
            if not (self.weight.requires_grad and torch.is_grad_enabled()):
                return super().forward(images)
            outputs: Tensor = _Convolution.apply(images, self.weight, self.bias)
            return outputs
        if images.dtype == torch.bfloat16 and num_pixels <= MAX_PIXELS_WHOLE:
            # (num_outputs, 9·C), a view if the weights are channels-last
            weight = self.weight.permute(0, 2, 3, 1).flatten(1)
            return F.linear(_patches(images), weight, self.bias).permute(0, 3, 1, 2)
        return super().forward(images)

    def _weight_gradient_is_slow(self, dtype: torch.dtype, num_pixels: int) -> bool:
        """Whether the second way is the fastest, on a map of at most `MAX_PIXELS`."""
        kernels = self.in_channels * self.out_channels
        if dtype == torch.bfloat16 and HAS_AMX:
            if num_pixels <= MAX_PIXELS_WHOLE:
                return MIN_KERNELS_BF16 <= kernels <= LARGE_BF16
            return kernels >= (MIN_KERNELS_BF16 if num_pixels < MAX_PIXELS else LARGE_BF16)
        fp32 = dtype == self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return fp32 and kernels >= MIN_KERNELS_FP32


class _Convolution(torch.autograd.Function):
    """PyTorch's convolution with a different computation of the weight gradient."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kernels = weight.to(images.dtype)
        ctx.save_for_backward(images, kernels)
        ctx.dtype = weight.dtype
        return F.conv2d(images, kernels, None if bias is None else bias.to(images.dtype), padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        images, kernels = ctx.saved_tensors
        grad_input, grad_bias = None, None
        if ctx.needs_input_grad[0]:
            ones = [1, 1]
            grad_input, _, _ = torch.ops.aten.convolution_backward(
                grad_output,
                images,
                kernels,
                None,
                ones,
                ones,
                ones,
                False,
                [0, 0],
                1,
                [True, False, False],
            )
        if ctx.needs_input_grad[2]:
            grad_bias = grad_output.sum((0, 2, 3), dtype=ctx.dtype)
        num_outputs, num_inputs = kernels.shape[:2]
        grad_weight = torch.zeros(num_outputs, 9 * num_inputs, dtype=ctx.dtype)
        size = max(1, PATCH_VALUES // (9 * images[0].numel()))
        parts = torch.split(images, size), torch.split(grad_output, size)
        for some, above in zip(*parts, strict=True):
            by_output = above.permute(1, 0, 2, 3).flatten(1).contiguous()  # (num_outputs, B·H·W)
            grad_weight += by_output @ _patches(some).flatten(0, 2)
        grad_weight = grad_weight.view(num_outputs, 3, 3, num_inputs).permute(0, 3, 1, 2)
        return grad_input, grad_weight, grad_bias


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
