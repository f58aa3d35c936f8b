"""Pass one blank image through a network, and look at what some of its layers do."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from glimpse.data.spec import ImageSpec


def look_at_layers(
    network: nn.Module,
    spec: ImageSpec,
    layers: Iterable[nn.Module],
    look: Callable[[Any, Any, Any], None],
) -> None:
    """Pass one blank image through a network in evaluation mode, which changes nothing in it.

    Args:
        network: Maps (B, C, H, W) to logits (B, K).
        spec: The spec of the images.
        layers: Layers of the network.
        look: Called after each of them, with the layer, its inputs and its output.
    """
    hooks = [layer.register_forward_hook(look) for layer in layers]
    was_training = network.training
    device = next(network.parameters(), torch.empty(0)).device
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, spec.channels, spec.height, spec.width, device=device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
