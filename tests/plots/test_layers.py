"""The picture of a network's layers names the classes of the logits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from glimpse.insight.activations import LayerOutput
from glimpse.plots import layers


@pytest.mark.parametrize(
    ("num_classes", "largest", "named"),
    [(3, 1, [0, 1, 2]), (200, 150, [141, 142, 143, 144, 145, 146, 147, 148, 149, 150])],
)
def test_the_ten_largest_logits_bear_the_names_of_their_classes(
    num_classes: int,
    largest: int,
    named: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(layers, "save_figure", lambda figure, path: drawn.append(figure))
    logits = torch.arange(num_classes, dtype=torch.float)
    logits[largest + 1 :] = -1
    outputs = [
        LayerOutput("hidden", "Linear", torch.rand(80)),
        LayerOutput("head", "Linear", logits),
    ]
    names = [f"class {label}" for label in range(num_classes)]
    layers.draw_layers(outputs, np.zeros((4, 4, 3), np.uint8), names, "title", tmp_path / "l.png")
    hidden, head = [axes for axes in drawn[0].axes if axes.patches]
    assert len(hidden.patches) == layers.MAX_UNITS
    assert not hidden.get_xticklabels()
    assert [label.get_text() for label in head.get_xticklabels()] == [names[n] for n in named]
    colours = [bar.get_facecolor() for bar in head.patches]
    highlighted = [n for n, colour in zip(named, colours, strict=True) if colour != colours[0]]
    assert highlighted == [largest]
