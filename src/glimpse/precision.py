"""Which precision and memory layout `trainer.precision=auto` picks: by rule, so that the same
command gives the same bits on the same kind of machine, never by trying.

bf16 autocast with channels-last where a network convolves at least 16 channels over images of at
least 16 pixels, and the processor multiplies bf16 matrices: CUDA from Ampere on, or a CPU with AMX
or AVX512-BF16. fp32 elsewhere. Convolutions run channels-last in fp32 as well on such images.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from glimpse.data.spec import ImageSpec

MIN_SIDE = 16  # pixels
MIN_CHANNELS = 16  # that some convolution reads


@dataclass(frozen=True)
class Precision:
    """Lightning's name of a precision, the layout of images and weights, and why."""

    name: str
    memory_format: torch.memory_format
    reason: str


def choose(requested: str | int, network: nn.Module, spec: ImageSpec, device: str) -> Precision:
    """The precision and layout to train in.

    Args:
        requested: `trainer.precision`: "auto", or one of Lightning's, which is then taken.
        network: whose convolutions decide.
        spec: whose image size decides.
        device: "cuda", "cpu" or "mps".
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    widest = max((m.in_channels for m in convolutions), default=0)
    large = min(spec.height, spec.width) >= MIN_SIDE and widest >= MIN_CHANNELS
    layout = torch.channels_last if large and device != "mps" else torch.contiguous_format
    if requested != "auto":
        return Precision(str(requested), layout, "as asked")
    if not large:
        reason = "small images or few channels gain nothing from bf16"
        return Precision("32-true", layout, reason)
    hardware = bf16_hardware(device)
    if hardware:
        return Precision("bf16-mixed", layout, f"a convnet on large enough images, and {hardware}")
    return Precision("32-true", layout, "no fast bf16 on this processor")


@cache
def bf16_hardware(device: str) -> str | None:
    """What multiplies bf16 matrices fast on "cuda" or "cpu", if anything here does."""
    if device == "cuda":
        major, _ = torch.cuda.get_device_capability()
        return "tensor cores" if major >= 8 else None
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("amx_bf16"):
            return "AMX"
        if capabilities.get("avx512_bf16"):
            return "AVX512-BF16"
    return None
