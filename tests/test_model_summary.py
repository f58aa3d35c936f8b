"""The table of a network's layers: short, complete, and without a trace on the network."""

import pytest
import torch
from rich.table import Table
from torch import nn

from glimpse.data.spec import ImageSpec
from glimpse.model_summary import count_parameters, layer_table
from glimpse.models.convnet import ConvNet
from glimpse.models.pretrained import Pretrained


def spec(side: int) -> ImageSpec:
    return ImageSpec(10, tuple("0123456789"), 3, side, side, (0.0,) * 3, (1.0,) * 3)


def parameters(table: Table) -> list[int]:
    """The last column's numbers; the last is the total."""
    return [int(str(cell).replace(",", "")) for cell in table.columns[3].cells if cell]


def test_the_network_is_left_as_it_was() -> None:
    network = ConvNet(spec(28), batch_norm=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    table = layer_table(network, spec(28))
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert parameters(table)[-1] == count_parameters(network)


@pytest.mark.parametrize(
    "architecture",
    [
        "resnet50",
        "densenet121",
        "mobilenet_v3_small",
        "timm/vit_tiny_patch16_224",
        "timm/mixer_s32_224",
    ],
)
def test_a_deep_network_takes_at_most_20_lines_and_loses_no_parameter(architecture: str) -> None:
    network = Pretrained(spec(224), architecture=architecture, weights="none")
    folded = layer_table(network, spec(224))
    whole = layer_table(network, spec(224), every_layer=True)
    assert folded.row_count + 1 <= 20 < whole.row_count
    for table in (folded, whole):
        *rows, total = parameters(table)
        assert sum(rows) == total == count_parameters(network)


class Own(nn.Module):
    """A network with a parameter of its own, attention, and a layer that it calls twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.twice = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images).flatten(2).mT
        tokens = self.attend(tokens, tokens, tokens)[0]
        return self.head(self.twice(self.twice(tokens)).mean(1)) * self.scale


def test_the_rows_of_any_network_add_up_to_its_parameters() -> None:
    table = layer_table(Own(), spec(8))
    *rows, total = parameters(table)
    assert sum(rows) == total == count_parameters(Own())
    shown = dict(zip(table.columns[0].cells, table.columns[3].cells, strict=True))
    assert shown["attend"] == str(4 * 8 * 8 + 4 * 8)
    assert shown["network"] == "1"
