"""A network's layers with their output shapes and parameters, as a table."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from rich.table import Table
from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.one_pass import look_at_layers
from glimpse.text import by

MAX_ROWS = 18  # with the header and the total, 20 lines
OUTERMOST = "network"  # the row of parameters that the network itself has


class Row(NamedTuple):
    """A layer, or several that are shown as one."""

    name: str
    kind: str
    shape: str
    num_parameters: int


def layer_table(network: nn.Module, spec: ImageSpec, *, every_layer: bool = False) -> Table:
    """The layers in the order in which an image passes them, in at most 20 lines.

    The table of a deeper network is folded: norms, activations and dropout join the layer before
    them, then layers are grouped into their blocks.

    Args:
        network: The network. It processes one black image in evaluation mode, and does not change.
        spec: The size and channels of that image.
        every_layer: Whether to show every layer, however many there are.
    """
    rows = _rows(network, spec)
    if len(rows) > MAX_ROWS and not every_layer:
        rows = _folded(rows, network)
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    table.add_column("type")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right")
    for row in rows:
        number = f"{row.num_parameters:,}" if row.num_parameters else ""
        table.add_row(row.name, row.kind, row.shape, number)
    table.add_row("", "", "", f"{count_parameters(network):,}", style="bold")
    return table


def _rows(network: nn.Module, spec: ImageSpec) -> list[Row]:
    """Every layer that has no layers of its own, or parameters beside those of its layers.

    Each parameter is counted in one row. Those of layers that are never called, such as the last
    matrix of torch's attention, belong to the row of the module around them.
    """
    called: list[tuple[nn.Module, str]] = []
    names = {module: name for name, module in network.named_modules()}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        called.append((module, by(first.shape[1:]) if isinstance(first, Tensor) else "?"))

    look_at_layers(network, spec, list(filter(_has_row, network.modules())), note)
    inner_first = sorted({m for m, _ in called}, key=lambda m: names[m].count("."), reverse=True)
    counted: set[nn.Parameter] = set()
    numbers: dict[nn.Module, int] = {}
    for module in [*(m for m in inner_first if m is not network), network]:
        own = set(module.parameters()) - counted
        numbers[module] = sum(parameter.numel() for parameter in own)
        counted |= own
    rows = [
        Row(names[m] or OUTERMOST, type(m).__name__, shape, numbers.pop(m, 0))
        for m, shape in called
    ]
    if rest := numbers.get(network, 0):
        rows.append(Row("…", "parameters of no layer", "", rest))
    return rows


def _has_row(module: nn.Module) -> bool:
    return not list(module.children()) or bool(list(module.parameters(recurse=False)))


def _folded(rows: Sequence[Row], network: nn.Module) -> list[Row]:
    joined = _joined(rows)
    depth = max(row.name.count(".") for row in rows)
    shown = joined
    while len(shown) > MAX_ROWS and depth > 0:
        shown = _as_blocks(joined, network, depth)
        depth -= 1
    if len(shown) <= MAX_ROWS:
        return shown
    return [*shown[: MAX_ROWS - 1], _rest(shown[MAX_ROWS - 1 :])]


def _joined(rows: Sequence[Row]) -> list[Row]:
    """Norms, activations and dropout, which keep the shape, as part of the layer before them."""
    found: list[Row] = []
    for row in rows:
        follows = found and found[-1].shape == row.shape and _is_small(row, found[-1])
        if follows:
            last = found[-1]
            kind = f"{last.kind}, {row.kind}"
            number = last.num_parameters + row.num_parameters
            found[-1] = last._replace(kind=kind, num_parameters=number)
        else:
            found.append(row)
    return found


def _is_small(row: Row, before: Row) -> bool:
    """Whether a layer has no weights, or few compared with the layer before it."""
    return row.num_parameters * 4 <= before.num_parameters or not row.num_parameters


def _as_blocks(rows: Sequence[Row], network: nn.Module, depth: int) -> list[Row]:
    """Neighbours whose names begin with the same `depth` parts, as one row."""
    found = []
    for name, group in groupby(rows, key=lambda row: ".".join(row.name.split(".")[:depth])):
        members = list(group)
        if len(members) == 1:
            found.append(members[0])
            continue
        kind = f"{type(network.get_submodule(name)).__name__} of {len(members)}"
        number = sum(member.num_parameters for member in members)
        found.append(Row(name, kind, members[-1].shape, number))
    return found


def _rest(rows: Sequence[Row]) -> Row:
    number = sum(row.num_parameters for row in rows)
    return Row("…", f"{len(rows)} more", rows[-1].shape, number)


def count_parameters(module: nn.Module) -> int:
    """The number of parameters, trainable or frozen; a shared one counts once."""
    return sum(parameter.numel() for parameter in module.parameters())
