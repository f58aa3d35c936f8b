"""A table of a network's layers with their output shapes and parameter counts."""

from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from glimpse.data.spec import ImageSpec


def layer_table(network: nn.Module, spec: ImageSpec) -> Table:
    """Build a table with one row per layer, in the order of execution.

    Args:
        network: Processes one black image in evaluation mode; its state does not change.
        spec: The shape of the image.
    """
    rows: list[tuple[str, str, str, int]] = []
    names = {module: name for name, module in network.named_modules()}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        shape = "×".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else "?"
        rows.append((names[module], type(module).__name__, shape, count_parameters(module)))

    leaves = [m for m in network.modules() if not list(m.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, spec.channels, spec.height, spec.width))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    table.add_column("type")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right")
    for name, kind, shape, parameters in rows:
        table.add_row(name, kind, shape, f"{parameters:,}" if parameters else "")
    table.add_row("", "", "", f"{count_parameters(network):,}", style="bold")
    return table


def count_parameters(module: nn.Module) -> int:
    """Count trainable and frozen parameters; a shared parameter counts once."""
    return sum(parameter.numel() for parameter in module.parameters())
