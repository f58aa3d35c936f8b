"""The first layer of a network as a picture.

It shows the kernels of a convolution, or the pixel weights of each unit of a linear layer.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.utils import make_grid

from glimpse.data.spec import ImageSpec

MAX_KERNELS = 64
SHOWN_SIDE = 40  # pixels; smaller kernels are enlarged to about this size
NEGATIVE, POSITIVE = (0.13, 0.40, 0.67), (0.70, 0.09, 0.17)  # blue and red; zero is white


def first_weights(network: nn.Module, spec: ImageSpec) -> Tensor | None:
    """(N, C, h, w) weights of the first layer that sees pixels; None if there is no such layer."""
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight = module.weight.detach().float().cpu()
        if weight.ndim == 4:
            return weight
        if weight.ndim == 2 and weight.shape[1] == math.prod(spec.shape):
            return weight.view(-1, *spec.shape)
    return None


def kernel_grid(weights: Tensor) -> Tensor:
    """(3, H, W) uint8 picture of the first 64 kernels, each scaled by its largest weight.

    RGB kernels are shown in colour, with 0 as grey. For other kernels, the picture shows the mean
    over the channels, with positive values in red and negative values in blue.
    """
    kernels = weights[:MAX_KERNELS]
    if kernels.shape[1] == 3:
        pictures = kernels / (2 * _largest(kernels)) + 0.5
    else:
        means = kernels.mean(1, keepdim=True)
        means = means / _largest(means)
        towards = [torch.tensor(c).view(1, 3, 1, 1) for c in (POSITIVE, NEGATIVE)]
        pictures = 1 - means.clamp(min=0) * (1 - towards[0]) + means.clamp(max=0) * (1 - towards[1])
    grid = make_grid(enlarged(pictures, SHOWN_SIDE), nrow=8, padding=3, pad_value=0.85)
    picture: Tensor = (grid * 255).round().clamp(0, 255).to(torch.uint8)
    return picture


def enlarged(pictures: Tensor, side: int) -> Tensor:
    """Enlarge small pictures (N, C, H, W) by a whole factor, to at most `side` pixels."""
    factor = max(1, side // max(pictures.shape[-2:]))
    return pictures.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def _largest(kernels: Tensor) -> Tensor:
    return kernels.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
