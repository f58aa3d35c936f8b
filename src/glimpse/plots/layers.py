"""Draw the output of each layer for one image, and the Grad-CAM of a class over the image."""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glimpse.insight.activations import LayerOutput
from glimpse.plots.canvas import fitted
from glimpse.plots.colours import COLOURS
from glimpse.plots.names import distinct
from glimpse.plots.save import DPI, new_figure, save_figure
from glimpse.text import by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LAYERS = 12
NUM_MAPS = 8  # feature maps per layer: those that vary most over the image
MAX_UNITS = 64  # units drawn for a linear layer
MAX_CLASSES = 10
LOGITS_WIDTH, LOGITS_GAP = 8.1, 0.08  # inches, of all logits and between their names
LOGITS_SIZE = 6.0  # points, of these names
TITLE_CHARACTERS = 90  # as many as fit the width of the Grad-CAM


def draw_layers(
    outputs: list[LayerOutput],
    pixels: NDArray[np.uint8],
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Draw a row for each of up to twelve layers, below their input image.

    If the last layer has an output for each class, the ten largest are drawn, with their names.
    """
    from matplotlib.figure import Figure

    chosen = np.unique(np.linspace(0, len(outputs) - 1, MAX_LAYERS).round().astype(int))
    shown = [outputs[number] for number in chosen]
    num_rows = len(shown) + 1
    # Without a layout engine, even if a notebook has set one.
    figure = Figure(
        figsize=(2.4 + NUM_MAPS, 0.6 + 1.05 * num_rows),
        dpi=DPI,
        layout="none",  # type: ignore[arg-type]
    )
    height = figure.get_figheight()
    grid = figure.add_gridspec(
        num_rows, NUM_MAPS + 2, wspace=0.08, hspace=0.08,
        left=0.01, right=0.99, bottom=0.2 / height, top=1 - 0.4 / height,
    )  # fmt: skip
    figure.suptitle(title, size=10, y=1 - 0.1 / height, va="top", parse_math=False)
    axes = figure.add_subplot(grid[0, 2])
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")
    short = distinct(layer.name for layer in shown)
    names = [short[layer.name] for layer in shown]
    for row, (layer, name) in enumerate(zip(shown, names, strict=True), 1):
        label = figure.add_subplot(grid[row, :2])
        label.axis("off")
        size = by(layer.output.shape)
        units = layer.output.flatten()
        is_map = layer.output.ndim == 3 and layer.output.shape[1:].numel() > 1
        has_names = layer is outputs[-1] and len(units) == len(class_names)
        if not is_map and not has_names and len(units) > MAX_UNITS:
            size += f", first {MAX_UNITS}"
        if has_names and len(units) > MAX_CLASSES:
            size += f", {MAX_CLASSES} largest"
        text = f"{name}\n{layer.kind}\n{size}"
        label.text(0.02, 0.5, text, va="center", size=9, parse_math=False)
        if is_map:
            for place, channel in enumerate(_most_varied(layer.output)):
                axes = figure.add_subplot(grid[row, place + 2])
                axes.imshow(channel.numpy(), cmap="viridis")
                axes.axis("off")
        else:
            axes = figure.add_subplot(grid[row, 2:])
            axes.tick_params(labelsize=6)
            axes.margins(x=0)
            if has_names:
                _draw_logits(axes, units, class_names)
            else:
                axes.bar(range(len(units[:MAX_UNITS])), units[:MAX_UNITS].numpy(), color=COLOURS[0])
                axes.set_xticks([])
    save_figure(figure, path)


def _draw_logits(axes: "Axes", logits: Tensor, class_names: Sequence[str]) -> None:
    """Draw the ten largest of the (num_classes,) logits, each with the name of its class.

    The classes keep their order, and the largest logit has a colour of its own.
    """
    shown = logits.topk(min(MAX_CLASSES, len(logits))).indices.sort().values
    colours = [COLOURS[1] if label == logits.argmax() else COLOURS[0] for label in shown]
    axes.bar(range(len(shown)), logits[shown].numpy(), color=colours)
    width = LOGITS_WIDTH / len(shown) - LOGITS_GAP
    shorten = partial(fitted, width=width, size=LOGITS_SIZE)
    names = list(distinct((class_names[label] for label in shown), shorten).values())
    axes.set_xticks(range(len(shown)), names, size=LOGITS_SIZE, parse_math=False)


def _most_varied(maps: Tensor) -> Tensor:
    """The eight of the (C, H, W) maps whose values vary most, in their original order."""
    spread = maps.flatten(1).std(1)
    chosen = spread.argsort(descending=True, stable=True)[:NUM_MAPS]
    return maps[chosen.sort().values]


def draw_grad_cam(cam: Tensor, pixels: NDArray[np.uint8], title: str, path: Path) -> None:
    """Draw the image, and the image overlaid with its Grad-CAM, which is (H, W) in [0, 1]."""
    figure = new_figure(7, 3.6)
    figure.suptitle(textwrap.fill(title, TITLE_CHARACTERS), size=10, parse_math=False)
    height, width = pixels.shape[:2]
    plain, covered = figure.subplots(1, 2)
    for axes in (plain, covered):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
        axes.axis("off")
    image = covered.imshow(
        cam.numpy(), cmap="inferno", alpha=0.55, vmin=0, vmax=1, extent=(0, width, height, 0)
    )
    figure.colorbar(image, ax=covered, shrink=0.8, label="support for the class")
    save_figure(figure, path)
