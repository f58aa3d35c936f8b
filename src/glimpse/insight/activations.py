"""The output of each layer for one image, and the pixels that support a class (Grad-CAM)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

SHOWN_LAYERS = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


class LayerOutput(NamedTuple):
    """A layer's name and type, and its output for one image: (C, H, W), or (N,) if it is linear."""

    name: str
    kind: str
    output: Tensor


@torch.no_grad()
def layer_outputs(
    network: nn.Module, image: Tensor, forward: Callable[[Tensor], Any] | None = None
) -> list[LayerOutput]:
    """The outputs of convolutions, poolings and linear layers, in the order of the forward pass.

    Args:
        network: The network, in evaluation mode.
        image: (1, C, H, W), preprocessed for the network.
        forward: The forward pass, such as the network in bf16; None means the network itself.
    """
    found: list[LayerOutput] = []
    hooks = []

    def note(name: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):  # copied, because the next layer may work in place
                values = output[0].to("cpu", torch.float32, copy=True)
                found.append(LayerOutput(name, type(module).__name__, values))

        hooks.append(module.register_forward_hook(hook))

    for name, module in network.named_modules():
        if isinstance(module, SHOWN_LAYERS):
            note(name, module)
    try:
        (forward or network)(image)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def last_convolution(network: nn.Module, image: Tensor) -> nn.Module | None:
    """The last convolution whose maps have more than one pixel; None if there is none.

    Convolutions on a single pixel, such as those after a pooling, hold no positions.
    """
    names = [
        o.name
        for o in layer_outputs(network, image)
        if o.output.ndim == 3 and o.output[0].numel() > 1 and "Conv" in o.kind
    ]
    return network.get_submodule(names[-1]) if names else None


def grad_cam(network: nn.Module, image: Tensor, label: int) -> Tensor | None:
    """Compute the Grad-CAM of a class (Selvaraju et al. 2017, Grad-CAM, sec. 3).

    It is the positive part of the sum of the last convolution's maps, weighted by the class's
    gradient.

    Args:
        network: The network, in evaluation mode.
        image: (1, C, H, W), preprocessed for the network.
        label: The label of the class.

    Returns:
        (H, W) in [0, 1], at the image's size; None if no convolution has positions.
    """
    layer = last_convolution(network, image)
    if layer is None:
        return None
    cam = LayerGradCam(network, layer).attribute(image, target=label, relu_attributions=True)
    assert isinstance(cam, Tensor)
    enlarged = F.interpolate(
        cam.detach().float(), image.shape[-2:], mode="bilinear", align_corners=False
    )
    return (enlarged / enlarged.max().clamp(min=1e-12))[0, 0].cpu()
