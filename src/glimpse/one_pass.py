"""Put a network into evaluation mode, and look at what its layers do with one black image."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from glimpse.data.spec import ImageSpec


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a block, and then each layer back into the mode it had."""
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


@torch.no_grad()
def output_for_black(network: nn.Module, spec: ImageSpec) -> Any:
    """What a network returns for one black image in evaluation mode, which changes nothing in it."""
    device = next(network.parameters(), torch.empty(0)).device
    with evaluating(network):
        return network(torch.zeros(1, *spec.shape, device=device))


def look_at_layers(
    network: nn.Module,
    spec: ImageSpec,
    layers: Iterable[nn.Module],
    look: Callable[[Any, Any, Any], None],
) -> None:
    """Pass one black image through a network in evaluation mode, which changes nothing in it.

    Args:
        network: Maps (B, C, H, W) to logits (B, K).
        spec: The spec of the images.
        layers: Layers of the network.
        look: Called after each of them, with the layer, its inputs and its output.
    """
    hooks = [layer.register_forward_hook(look) for layer in layers]
    try:
        output_for_black(network, spec)
    finally:
        for hook in hooks:
            hook.remove()
