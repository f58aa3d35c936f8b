"""Draw the worst mistakes of a network. Lengths are in inches."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glimpse.insight.confusion import Pair, most_confused
from glimpse.insight.predictions import Predictions
from glimpse.plots.canvas import Canvas, fitted, text_width
from glimpse.plots.grids import FONT_SIZE, LABEL_WIDTH, TITLE_SIZE, draw_grids
from glimpse.plots.names import distinct
from glimpse.text import plural

NUM_PAIRS = 6  # pairs shown with examples
NUM_EXAMPLES = 8  # examples per pair
ROW = 1.05  # for an image of 1 inch
RIGHT = "✓"
LINE = 0.15  # height of a line beside the images

Images = Callable[[NDArray[np.int64]], Tensor]  # positions (B,) to images (B, C, H, W) in [0, 1]


def draw_most_confused(predictions: Predictions, images: Images, title: str, path: Path) -> None:
    """Draw a row of examples for each of the worst pairs, the most confident mistakes first."""
    shown = most_confused(predictions)[:NUM_PAIRS]
    names = predictions.class_names
    short = distinct(names[label] for pair in shown for label in (pair.actual, pair.predicted))
    width, height = 2.4 + NUM_EXAMPLES, 0.5 + ROW * max(1, len(shown))
    canvas = Canvas(width, height)
    canvas.text(width / 2, 0.22, title, size=TITLE_SIZE, anchor="mm", is_bold=True)
    for row, pair in enumerate(shown):
        middle = height - ROW * (len(shown) - row - 0.5)
        actual, predicted = short[names[pair.actual]], short[names[pair.predicted]]
        lines = (actual, f"called {predicted}", plural(pair.num_images, "image"))
        for number, line in enumerate(lines):
            canvas.text(0.15, middle + (number - 1) * LINE, line, size=FONT_SIZE, anchor="lm")
        for place, image in enumerate(images(examples(predictions, pair))):
            half_height, half_width = (n / max(image.shape[1:]) / 2 for n in image.shape[1:])
            centre = width - ROW * (NUM_EXAMPLES - place - 0.5)
            sides = (centre - half_width, centre + half_width)
            canvas.image(image, (sides[0], middle - half_height, sides[1], middle + half_height))
    if not shown:
        canvas.text(width / 2, height / 2, "no mistakes", size=FONT_SIZE, anchor="mm")
    canvas.save(path)


def examples(predictions: Predictions, pair: Pair) -> NDArray[np.int64]:
    """The positions of a pair's most confident mistakes."""
    is_such = (predictions.labels == pair.actual) & (predictions.predicted == pair.predicted)
    found = np.flatnonzero(is_such)
    return found[np.argsort(-predictions.confidence[found], kind="stable")][:NUM_EXAMPLES]


def draw_answers(
    predictions: Predictions, positions: NDArray[np.int64], images: Images, title: str, path: Path
) -> None:
    """Draw images with the actual class, the predicted class and its probability below each."""
    names = predictions.class_names
    actual, answers = predictions.labels[positions], predictions.predicted[positions]
    width = LABEL_WIDTH - text_width("→  0.00", size=FONT_SIZE)  # for the name of the answer
    shorten = partial(fitted, width=width, size=FONT_SIZE)
    short = distinct((names[label] for label in (*actual, *answers)), shorten)
    found = zip(actual, answers, predictions.confidence[positions], strict=True)
    labels = [
        f"{short[names[label]]}\n{RIGHT if label == answer else f'→ {short[names[answer]]}'} {share:.2f}"
        for label, answer, share in found
    ]
    title = f"{title}: actual class → predicted class ({RIGHT}: the same), its probability"
    draw_grids({title: images(positions)}, {title: labels}, path)
