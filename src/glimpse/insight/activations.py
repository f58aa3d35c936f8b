"""The output of each layer for one image, and the pixels that support a class (Grad-CAM)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

SHOWN_LAYERS = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


class LayerOutput(NamedTuple):
    """A layer's name and type, and its output for one image: (C, H, W), or (N,) of units."""

    name: str
    kind: str
    output: Tensor


@torch.no_grad()
def layer_outputs(
    network: nn.Module,
    image: Tensor,
    forward: Callable[[Tensor], Any] | None = None,
    *,
    kinds: tuple[type[nn.Module], ...] = SHOWN_LAYERS,
) -> list[LayerOutput]:
    """The outputs of some kinds of layers, in the order of the forward pass.

    Args:
        network: The network, in evaluation mode.
        image: (1, C, H, W), preprocessed for the network.
        forward: The forward pass, such as the network in bf16; None means the network itself.
        kinds: Convolutions, poolings and linear layers unless given.
    """
    found: list[LayerOutput] = []

    def note(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):  # copied, because the next layer may work in place
            values = output[0].to("cpu", torch.float32, copy=True)
            if isinstance(module, nn.Linear) and values.ndim == 3:
                values = values.movedim(-1, 0)  # a linear layer of maps has the channels last
            found.append(LayerOutput(name, type(module).__name__, values))

    hooks = [
        module.register_forward_hook(partial(note, name))
        for name, module in network.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        (forward or network)(image)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def last_maps(network: nn.Module, image: Tensor) -> nn.Module | None:
    """The module that returns the last maps of the same size as those of the last convolution.

    These may be the output of a norm, an activation, a residual block or parallel branches.
    Convolutions on a single pixel, such as those after a pooling, hold no positions.

    Returns:
        The module; None if no convolution holds positions.
    """
    outputs: dict[str, Tensor] = {}
    for found in layer_outputs(network, image, kinds=(nn.Module,)):
        outputs.pop(found.name, None)  # a module that is used again counts with its last output
        outputs[found.name] = found.output
    maps = {n: o for n, o in outputs.items() if o.ndim == 3 and o[0].numel() > 1}
    latest_first = [(network.get_submodule(name), output) for name, output in maps.items()][::-1]
    sizes = (out.shape[1:] for module, out in latest_first if isinstance(module, nn.Conv2d))
    size = next(sizes, None)
    return next((module for module, out in latest_first if out.shape[1:] == size), None)


def grad_cam(network: nn.Module, image: Tensor, label: int) -> Tensor | None:
    """Compute the Grad-CAM of a class (Selvaraju et al. 2017, Grad-CAM, sec. 3).

    It is the positive part of the sum of the last maps (see `last_maps`), weighted by the class's
    gradient.

    Args:
        network: The network, in evaluation mode.
        image: (1, C, H, W), preprocessed for the network.
        label: The label of the class.

    Returns:
        (H, W) in [0, 1], at the image's size; None if no convolution has positions.
    """
    layer = last_maps(network, image)
    if layer is None:
        return None
    cam = LayerGradCam(network, layer).attribute(image, target=label, relu_attributions=True)
    assert isinstance(cam, Tensor)
    enlarged = F.interpolate(
        cam.detach().float(), image.shape[-2:], mode="bilinear", align_corners=False
    )
    return (enlarged / enlarged.max().clamp(min=1e-12))[0, 0].cpu()
