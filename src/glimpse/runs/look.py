"""Pictures of one network and one image: first-layer kernels, every layer's output, Grad-CAM."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from glimpse.config.check import unknown_choice
from glimpse.errors import UserError
from glimpse.files import replacing
from glimpse.insight.activations import LayerOutput, grad_cam, layer_outputs
from glimpse.insight.first_layer import first_weights, kernel_grid
from glimpse.plots.colours import COLOURS
from glimpse.plots.pictures import DPI, shortened
from glimpse.runs.trained import TrainedRun

MAX_LAYERS = 12
NUM_MAPS = 8  # of a layer, those that vary most over the image
MAX_UNITS = 64  # of a linear layer


def draw_look(
    trained: TrainedRun,
    folder: Path,
    *,
    image: Path | None,
    position: int,
    class_name: str | None,
) -> Iterator[str]:
    """Write the pictures; yields a line for each as it is written.

    Args:
        trained: the network.
        folder: to write to.
        image: a file; None takes a validation image.
        position: which one.
        class_name: whose Grad-CAM to draw; None: the predicted class's.

    Raises:
        UserError: there is no such image or class.
    """
    pixels, title = _pixels(trained, image, position)
    seen = trained.to_network(torch.from_numpy(pixels[None]))
    seen = seen.to(next(trained.inner.parameters()).dtype)
    probabilities = trained.probabilities(torch.from_numpy(pixels[None]))[0]
    names = trained.spec.class_names
    if class_name is not None and class_name not in names:
        raise UserError(unknown_choice("--class", class_name, names))
    predicted = int(probabilities.argmax())
    label = predicted if class_name is None else names.index(class_name)
    answer = f"{title}: predicted {names[predicted]} ({probabilities[predicted]:.2f})"
    yield answer
    weights = first_weights(trained.inner, trained.spec)
    if weights is not None:
        path = folder / "first_layer.png"
        with replacing(path) as partial:
            Image.fromarray(kernel_grid(weights).permute(1, 2, 0).numpy()).save(partial)
        yield f"written: {path}"
    path = folder / "layers.png"
    _draw_layers(layer_outputs(trained.inner, seen), pixels, answer, path)
    yield f"written: {path}"
    cam = grad_cam(trained.inner, seen, label)
    if cam is None:
        yield "no Grad-CAM: the network has no convolution"
        return
    path = folder / "grad_cam.png"
    subject = f"for {names[label]} ({probabilities[label]:.2f})"
    _draw_grad_cam(cam, pixels, f"{title}, Grad-CAM {subject}", path)
    yield f"written: {path}"


def _pixels(
    trained: TrainedRun, image: Path | None, position: int
) -> tuple[NDArray[np.uint8], str]:
    if image is not None:
        return trained.read_image(image), image.name
    labels = trained.data.labels("val")
    if position >= len(labels):
        raise UserError(
            f"--position {position}: expected less than {len(labels)} (validation images)"
        )
    [pixels] = trained.data.stored_images("val", np.array([position]))
    actual = trained.spec.class_names[labels[position]]
    return pixels, f"validation image {position} ({actual})"


def _draw_layers(
    outputs: list[LayerOutput], pixels: NDArray[np.uint8], title: str, path: Path
) -> None:
    from matplotlib.figure import Figure

    chosen = np.unique(np.linspace(0, len(outputs) - 1, MAX_LAYERS).round().astype(int))
    shown = [outputs[number] for number in chosen]
    num_rows = len(shown) + 1
    figure = Figure(figsize=(2.4 + NUM_MAPS, 0.4 + 1.05 * num_rows), dpi=DPI)
    figure.set_layout_engine("none")  # whatever a notebook sets
    height = figure.get_figheight()
    grid = figure.add_gridspec(
        num_rows, NUM_MAPS + 2, wspace=0.08, hspace=0.08,
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.4 / height,
    )  # fmt: skip
    figure.suptitle(title, size=10, y=1 - 0.1 / height, va="top", parse_math=False)
    axes = figure.add_subplot(grid[0, 2])
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")
    for row, layer in enumerate(shown, 1):
        label = figure.add_subplot(grid[row, :2])
        label.axis("off")
        size = "×".join(map(str, layer.output.shape))
        text = f"{shortened(layer.name)}\n{layer.kind}\n{size}"
        label.text(0.02, 0.5, text, va="center", size=9, parse_math=False)
        if layer.output.ndim == 3 and layer.output.shape[1:].numel() > 1:
            for place, channel in enumerate(_most_varied(layer.output)):
                axes = figure.add_subplot(grid[row, place + 2])
                axes.imshow(channel.numpy(), cmap="viridis")
                axes.axis("off")
        else:
            axes = figure.add_subplot(grid[row, 2:])
            units = layer.output.flatten()[:MAX_UNITS].numpy()
            axes.bar(range(len(units)), units, color=COLOURS[0])
            axes.tick_params(labelsize=6)
            axes.set_xticks([])
            axes.margins(x=0)
    with replacing(path) as partial:
        figure.savefig(partial)


def _most_varied(maps: Tensor) -> Tensor:
    """Of (C, H, W) maps the eight whose values vary most, in their order."""
    spread = maps.flatten(1).std(1)
    chosen = spread.argsort(descending=True, stable=True)[:NUM_MAPS]
    return maps[chosen.sort().values]


def _draw_grad_cam(cam: Tensor, pixels: NDArray[np.uint8], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained", dpi=DPI)
    figure.suptitle(title, size=10, parse_math=False)
    plain, covered = figure.subplots(1, 2)
    for axes in (plain, covered):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0))
        axes.axis("off")
    image = covered.imshow(
        cam.numpy(), cmap="inferno", alpha=0.55, vmin=0, vmax=1, extent=(0, 1, 1, 0)
    )
    figure.colorbar(image, ax=covered, shrink=0.8, label="speaks for the class")
    with replacing(path) as partial:
        figure.savefig(partial)
