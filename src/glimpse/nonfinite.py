"""Find where a network's numbers stopped being finite, so that the error can name the layer."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


def weight_not_finite(network: nn.Module) -> str | None:
    """The first parameter that is not finite, or buffer that contains NaN; None if there is none.

    A buffer may contain infinity, such as a mask for attention.
    """
    for name, weights in network.named_parameters():
        if not weights.isfinite().all():
            return name
    return next((name for name, buffer in network.named_buffers() if buffer.isnan().any()), None)


@torch.no_grad()
def where_not_finite(network: nn.Module, images: Tensor) -> str:
    """Describe where the first number that is not finite is: in the images, a weight or an output.

    A weight that is not finite comes from the previous step, whose gradient or rate was too large.
    The network and the random generators do not change.

    Args:
        network: The network whose loss is not finite.
        images: (B, C, H, W), the batch that it saw.
    """
    if not images.isfinite().all():
        return "the images are not finite"
    for name, weights in network.state_dict().items():
        if not weights.isfinite().all():
            return f"the previous step left numbers in {name} that are not finite"
    found: list[str] = []

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    copied = copy.deepcopy(network)  # a forward pass changes running statistics
    for name, module in copied.named_modules():  # a module runs its hook after those inside it
        module.register_forward_hook(note(name))
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        copied(images)
    if found:
        return f"the first output that is not finite is that of {found[0] or 'the network'}"
    return "every layer's output is finite, but the loss is not"
