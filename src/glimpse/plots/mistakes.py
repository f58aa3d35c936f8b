"""Draw the worst mistakes of a network. Lengths are in inches."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glimpse.insight.confusion import Pair
from glimpse.insight.predictions import Predictions
from glimpse.plots.canvas import Canvas, fitted, text_width
from glimpse.plots.grids import FONT_SIZE, LABEL_WIDTH, TITLE_SIZE, draw_grids
from glimpse.text import cut, plural

NUM_PAIRS = 6  # pairs shown with examples
NUM_EXAMPLES = 8  # examples per pair
ROW = 1.05  # for an image of 1 inch
LINE = 0.15  # height of a line beside the images
NAME_CHARACTERS = 18

Images = Callable[[NDArray[np.int64]], Tensor]  # positions (B,) to images (B, C, H, W) in [0, 1]


def draw_most_confused(
    predictions: Predictions, pairs: Sequence[Pair], images: Images, title: str, path: Path
) -> None:
    """Draw a row of examples for each of the worst pairs, the most confident mistakes first."""
    shown = pairs[:NUM_PAIRS]
    width, height = 2.4 + NUM_EXAMPLES, 0.5 + ROW * max(1, len(shown))
    canvas = Canvas(width, height)
    canvas.text(width / 2, 0.22, title, size=TITLE_SIZE, anchor="mm", is_bold=True)
    for row, pair in enumerate(shown):
        middle = height - ROW * (len(shown) - row - 0.5)
        names = (predictions.class_names[pair.actual], predictions.class_names[pair.predicted])
        actual, predicted = shortened(names)
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
    answers = zip(
        predictions.labels[positions],
        predictions.predicted[positions],
        predictions.confidence[positions],
        strict=True,
    )
    width = LABEL_WIDTH - text_width("→  0.00", size=FONT_SIZE)  # for the name of the answer
    labels = [
        f"{names[actual]}\n→ {fitted(names[answer], width, size=FONT_SIZE)} {confidence:.2f}"
        for actual, answer, confidence in answers
    ]
    title = f"{title}: actual class → predicted class, its probability"
    draw_grids({title: images(positions)}, {title: labels}, path)


def shortened(names: Sequence[str]) -> list[str]:
    """Names truncated to fit beside a picture.

    A name that then equals another loses its middle instead of its end.
    """
    same = Counter(cut(name, NAME_CHARACTERS) for name in set(names))
    half = (NAME_CHARACTERS - 1) // 2
    return [
        f"{name[:half]}…{name[-half:]}" if same[short] > 1 else short
        for name in names
        for short in (cut(name, NAME_CHARACTERS),)
    ]
