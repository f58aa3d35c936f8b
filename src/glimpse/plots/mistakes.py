"""Draw the confusions of a network and its worst mistakes. Lengths are in inches.

matplotlib takes a second to import, so each function imports it only when it draws.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glimpse.insight.confusion import Pair, most_confused_classes
from glimpse.insight.predictions import Predictions
from glimpse.plots.grids import draw_grids
from glimpse.plots.save import save_figure

MAX_CLASSES = 30  # a confusion matrix shows all classes up to this number
NUM_CHOSEN = 20  # with more classes, it shows this many: those with the most mistakes
NUM_PAIRS = 6  # pairs shown with examples
NUM_EXAMPLES = 8  # examples per pair
ROW = 1.05  # inches, for an image of 1 inch
NAME_CHARACTERS = 18
ANSWER_CHARACTERS = 10  # of a class name beside an arrow and a probability
DPI = 110

Images = Callable[[NDArray[np.int64]], Tensor]  # positions (B,) to images (B, C, H, W) in [0, 1]


def draw_confusion(
    matrix: NDArray[np.int64], class_names: Sequence[str], title: str, path: Path
) -> None:
    """Draw a confusion matrix. Colours are shares of the actual class, numbers count images.

    If there are more than 30 classes, it shows the 20 classes involved in the most mistakes.
    """
    from matplotlib.figure import Figure

    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if len(matrix) > MAX_CLASSES:
        chosen = most_confused_classes(matrix, NUM_CHOSEN)
        title += f"\nthe {NUM_CHOSEN} of {len(matrix)} classes with the most mistakes"
        matrix, shares = matrix[np.ix_(chosen, chosen)], shares[np.ix_(chosen, chosen)]
        class_names = [class_names[label] for label in chosen]
    names = [shortened(name) for name in class_names]
    side = max(3.0, 0.36 * len(names))
    figure = Figure(figsize=(side + 2.6, side + 1.9), layout="constrained", dpi=DPI)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", size=8)
    axes.set_yticks(places, names, size=8)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        dark = shares[row, column] > 0.5
        axes.text(
            column, row, f"{matrix[row, column]}",
            ha="center", va="center", size=7, color="white" if dark else "black",
        )  # fmt: skip
    axes.set(xlabel="predicted", ylabel="actual")
    axes.set_title(title, size=10)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the actual class")
    save_figure(figure, path)


def draw_most_confused(
    predictions: Predictions, pairs: Sequence[Pair], images: Images, title: str, path: Path
) -> None:
    """Draw a row of examples for each of the worst pairs, the most confident mistakes first."""
    from matplotlib.figure import Figure

    shown = pairs[:NUM_PAIRS]
    width, height = 2.4 + NUM_EXAMPLES, 0.5 + ROW * max(1, len(shown))
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.set_layout_engine("none")  # overrides the settings of a notebook
    figure.suptitle(title, size=10, y=1 - 0.12 / height, va="top")
    axes = figure.add_axes((0, 0, 1, 1))  # one for all images, in inches: axes take time to draw
    axes.axis("off")
    for row, pair in enumerate(shown):
        middle = height - ROW * (len(shown) - row - 0.5)
        names = (predictions.class_names[pair.actual], predictions.class_names[pair.predicted])
        actual, predicted = (shortened(name) for name in names)
        text = f"{actual}\ncalled {predicted}\n{pair.num_images} images"
        axes.text(0.15, middle, text, va="center", size=9, parse_math=False)
        for place, image in enumerate(images(examples(predictions, pair))):
            half_height, half_width = (n / max(image.shape[1:]) / 2 for n in image.shape[1:])
            centre = width - ROW * (NUM_EXAMPLES - place - 0.5)
            sides = (centre - half_width, centre + half_width)
            box = (*sides, middle + half_height, middle - half_height)
            pixels = image.permute(1, 2, 0).cpu().numpy()
            axes.imshow(pixels, extent=box, cmap="gray", vmin=0, vmax=1)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    if not shown:
        figure.text(0.5, 0.3, "no mistakes", ha="center")
    save_figure(figure, path)


def examples(predictions: Predictions, pair: Pair) -> NDArray[np.int64]:
    """The positions of a pair's most confident mistakes."""
    is_such = (predictions.labels == pair.actual) & (predictions.predicted == pair.predicted)
    found = np.flatnonzero(is_such)
    return found[np.argsort(-predictions.confidence[found], kind="stable")][:NUM_EXAMPLES]


def draw_answers(
    predictions: Predictions,
    positions: NDArray[np.int64],
    images: Images,
    title: str,
    path: Path,
) -> None:
    """Draw images with the actual class, the predicted class and its probability below each."""
    names = predictions.class_names
    answers = zip(
        predictions.labels[positions],
        predictions.predicted[positions],
        predictions.confidence[positions],
        strict=True,
    )
    labels = [
        f"{names[actual]}\n→ {_cut(names[answer], ANSWER_CHARACTERS)} {confidence:.2f}"
        for actual, answer, confidence in answers
    ]
    title = f"{title}: actual class → predicted class, its probability"
    draw_grids({title: images(positions)}, {title: labels}, path)


def shortened(name: str) -> str:
    """A class name truncated to fit beside a picture."""
    return _cut(name, NAME_CHARACTERS)


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1].rstrip()}…"
