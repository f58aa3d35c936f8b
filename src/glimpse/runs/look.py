"""Draw one network and one image: first-layer kernels, each layer's output, and Grad-CAM."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from glimpse.config.keys import unknown_choice
from glimpse.errors import UserError
from glimpse.insight.activations import grad_cam, layer_outputs
from glimpse.insight.first_layer import first_weights, kernel_grid
from glimpse.plots.layers import draw_grad_cam, draw_layers
from glimpse.plots.save import save_pixels
from glimpse.runs.trained import TrainedRun


def draw_look(
    trained: TrainedRun, folder: Path, *, image: Path | None, position: int, class_name: str | None
) -> Iterator[str]:
    """Write the pictures, and yield the prediction and then a line for each picture.

    Args:
        trained: The network.
        folder: The folder to write to.
        image: An image file; None means a validation image.
        position: The position of the validation image in its split.
        class_name: The class whose Grad-CAM to draw; None means the predicted class.

    Raises:
        UserError: there is no such image or class.
    """
    pixels, title = _pixels(trained, image, position)
    images = torch.from_numpy(pixels[None])
    seen = trained.to_network(images).to(next(trained.model.parameters()).dtype)
    probabilities = trained.probabilities(images)[0]
    names = trained.spec.class_names
    if class_name is not None and class_name not in names:
        raise UserError(unknown_choice("--class", class_name, names))
    predicted = int(probabilities.argmax())
    label = predicted if class_name is None else names.index(class_name)
    answer = f"{title}: predicted {names[predicted]} ({probabilities[predicted]:.2f})"
    yield answer
    weights = first_weights(trained.model, trained.spec)
    if weights is not None:
        path = folder / "first_layer.png"
        save_pixels(kernel_grid(weights), path)
        yield f"written: {path}"
    path = folder / "layers.png"
    outputs = layer_outputs(trained.model, seen, trained.network)  # in the prediction's precision
    if outputs:
        draw_layers(outputs, pixels, names, answer, path)
        yield f"written: {path}"
    else:
        yield "no layers.png: the network has no convolution, pooling or linear layer"
    cam = grad_cam(trained.model, seen, label)
    if cam is None:
        yield "no Grad-CAM: the network has no convolution"
        return
    path = folder / "grad_cam.png"
    subject = f"for {names[label]} ({probabilities[label]:.2f})"
    draw_grad_cam(cam, pixels, f"{title}, Grad-CAM {subject}", path)
    yield f"written: {path}"


def _pixels(
    trained: TrainedRun, image: Path | None, position: int
) -> tuple[NDArray[np.uint8], str]:
    if image is not None:
        return trained.read_image(image), image.name
    labels = trained.data.labels("val")
    if position >= len(labels):
        raise UserError(
            f"--position {position}: expected less than {len(labels)}, the number of validation "
            "images"
        )
    [pixels] = trained.data.stored_images("val", np.array([position]))
    actual = trained.spec.class_names[labels[position]]
    return pixels, f"validation image {position} ({actual})"
