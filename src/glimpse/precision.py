"""The precision and memory layout that `trainer.precision=auto` chooses.

The choice follows a fixed rule and never a trial run, so that the same command gives the same bits
on the same kind of machine. The processor must multiply bf16 matrices in hardware (CUDA from Ampere
on, or a CPU with AMX or AVX512-BF16); otherwise the rule chooses fp32. It chooses bf16 autocast for
two kinds of networks:

- with channels-last, if a convolution reads at least 16 channels and the images are at least 16
  pixels high and wide;
- if linear layers do most of the arithmetic, and enough of it that converting their inputs and
  weights to bf16 costs less than it gains (docs/speed.md), as in an mlp or a vision transformer.

In fp32, convolutions on such images also run channels-last. A user's network whose own code fails with
this layout, as `x.view(len(x), -1)` does, keeps torch's usual one.

On a CPU, a network with depthwise convolutions stays in fp32: its step takes up to three times as
long in bf16 (docs/speed.md). Other grouped convolutions gain as much as ordinary ones. A network
also stays in fp32 there if a part of a kernel only ever meets padding, as that of a 3×3 convolution
with stride 2 does on a map of 1×1: torch 2.14 leaves the gradient of that part uninitialised in
bf16, so that it may be nan.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

from glimpse.data.spec import ImageSpec
from glimpse.one_pass import evaluating, look_at_layers

MIN_SIDE = 16  # pixels
MIN_CHANNELS = 16  # input channels of the widest convolution
# Multiplications of the linear layers for an image. A GPU needs more of them, because a step of few
# is spent on starting its kernels; its number is an estimate.
MIN_LINEAR = {"cpu": 200_000, "cuda": 10_000_000}
WRONG_IN_BF16 = "part of a kernel meets only padding, where bf16 gradients on a CPU are wrong"


@dataclass(frozen=True)
class Precision:
    """Lightning's name of a precision, the layout of images and weights, and the reason."""

    name: str
    memory_format: torch.memory_format
    reason: str


def choose(
    requested: str | int,
    network: nn.Module,
    spec: ImageSpec,
    device: str,
    *,
    smaller: Sequence[tuple[int, int]] = (),
) -> Precision:
    """Choose the precision and layout for training.

    Args:
        requested: `trainer.precision`: "auto", or one of Lightning's names, which is used as given,
            except 16-mixed on a CPU, where Lightning trains in bf16-mixed.
        network: The network, for the widths of its convolutions.
        spec: The dataset's spec, for the image size.
        device: "cuda", "cpu" or "mps".
        smaller: Other heights and widths that the network trains on.
    """
    specs = [spec, *(replace(spec, height=height, width=width) for height, width in smaller)]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    widest = max((m.in_channels for m in convolutions), default=0)
    large = min(spec.height, spec.width) >= MIN_SIDE and widest >= MIN_CHANNELS
    layout = torch.channels_last if large and device != "mps" else torch.contiguous_format
    if layout is torch.channels_last and not _works_channels_last(network, spec):
        layout = torch.contiguous_format
    if requested != "auto":
        name, reason = str(requested), "as requested"
        if name in ("16", "16-mixed") and device == "cpu":  # Lightning would do it with a warning
            name, reason = "bf16-mixed", f"in place of {name}, which needs a GPU"
        if name.startswith("bf16") and device == "cpu" and _meets_only_padding(network, specs):
            reason += f", but {WRONG_IN_BF16}; type trainer.precision=auto"
        return Precision(name, layout, reason)
    hardware = bf16_hardware(device)
    if hardware is None:
        return Precision("32-true", layout, "no fast bf16 on this processor")
    if not large and not _is_mostly_linear(network, spec, device):
        reason = "convolutions on small images or of few channels gain nothing from bf16"
        if not convolutions:
            reason = "layers as small as these gain nothing from bf16"
        return Precision("32-true", layout, reason)
    if device == "cpu" and any(m.groups == m.in_channels > 1 for m in convolutions):
        reason = "depthwise convolutions are slower in bf16 on a CPU"
        return Precision("32-true", layout, reason)
    if device == "cpu" and _meets_only_padding(network, specs):
        return Precision("32-true", layout, WRONG_IN_BF16)
    kind = "a convnet on large enough images" if large else "large linear layers"
    return Precision("bf16-mixed", layout, f"{kind}, and {hardware}")


def _works_channels_last(network: nn.Module, spec: ImageSpec) -> bool:
    """Whether a forward and a backward pass succeed. A user's may not: `view` needs contiguous maps."""
    if type(network).__module__.startswith("glimpse."):
        return True
    images = torch.zeros(2, *spec.shape)
    network.to(memory_format=torch.channels_last)
    try:
        with evaluating(network), torch.enable_grad():
            logits = network(images.contiguous(memory_format=torch.channels_last))
            if logits.requires_grad:
                logits.sum().backward()
    except RuntimeError:
        network.to(memory_format=torch.contiguous_format)
        return False
    finally:
        network.zero_grad(set_to_none=True)
    return True


def _is_mostly_linear(network: nn.Module, spec: ImageSpec, device: str) -> bool:
    """Whether linear layers do most of a network's arithmetic, and enough for bf16 to gain."""
    linear, convolved = 0, 0

    def count(layer: nn.Linear | nn.Conv2d, _inputs: object, output: torch.Tensor) -> None:
        nonlocal linear, convolved
        multiplications = output.numel() * layer.weight[0].numel()
        if isinstance(layer, nn.Linear):
            linear += multiplications
        else:
            convolved += multiplications

    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    look_at_layers(network, spec, layers, count)
    return linear >= max(MIN_LINEAR[device], convolved)


def _meets_only_padding(network: nn.Module, specs: Sequence[ImageSpec]) -> bool:
    """Whether some part of a convolution's kernel never meets a pixel of images of some spec.

    Left out are 3×3 kernels with stride 1, and those with stride 2 on maps of more than one pixel:
    their gradients were right in all trials.
    """
    found: list[bool] = []

    def look(layer: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        for i in (0, 1):
            size, num_outputs = inputs[0].shape[2 + i], output.shape[2 + i]
            if size > 1 and layer.kernel_size[i] <= 3 and layer.stride[i] <= 2:
                continue
            starts = [n * layer.stride[i] - int(layer.padding[i]) for n in range(num_outputs)]
            taps = [n * layer.dilation[i] for n in range(layer.kernel_size[i])]
            found.append(not all(any(0 <= s + tap < size for s in starts) for tap in taps))

    convolutions = [
        module
        for module in network.modules()
        if type(module) is nn.Conv2d
        and not isinstance(module.padding, str)
        and max(module.padding) > 0
        and (max(module.stride) > 1 or max(module.kernel_size) > 3)
    ]
    for spec in specs if convolutions else ():
        with suppress(RuntimeError, ValueError, AssertionError):  # not a size of this network
            look_at_layers(network, spec, convolutions, look)
    return any(found)


@cache
def bf16_hardware(device: str) -> str | None:
    """Name the unit that multiplies bf16 matrices fast on "cuda" or "cpu"; None without one."""
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
