"""Draw a confusion matrix. Lengths are in inches."""

from pathlib import Path

import numpy as np

from glimpse.insight.confusion import confusion_matrix, most_confused_classes
from glimpse.insight.predictions import Predictions
from glimpse.plots.canvas import Canvas, shades, text_width
from glimpse.plots.names import distinct

MAX_CLASSES = 30  # the matrix shows all classes up to this number
NUM_CHOSEN = 20  # with more classes, it shows this many: those with the most mistakes
CELL = 0.31
MIN_SIDE = 2.6  # of the whole matrix; with few classes, its cells are larger
LINE = 0.2  # height of a line of text
GAP = 0.06  # between the matrix and the names beside it
COUNT_SIZE, NAME_SIZE, TITLE_SIZE = 6.5, 7.5, 9.0  # points
SCALE_WIDTH, SCALE_SPACE = 0.13, 0.85  # the scale of the colours, and the space that it takes
COLOURS = "Blues"
DARK = 0.7  # from this share on, white is easier to read on the colour than black


def draw_confusion(predictions: Predictions, title: str, path: Path) -> None:
    """Draw a confusion matrix. Colours are shares of the actual class, numbers count images.

    If there are more than 30 classes, it shows the 20 classes involved in the most mistakes.
    """
    class_names = predictions.class_names
    lines, chosen = [title], np.arange(len(class_names))
    if len(class_names) > MAX_CLASSES:
        chosen = most_confused_classes(predictions, NUM_CHOSEN)
        lines.append(f"the {NUM_CHOSEN} of {len(class_names)} classes with the most mistakes")
    matrix = confusion_matrix(predictions, chosen)
    num_images = np.bincount(predictions.labels, minlength=len(class_names))[chosen]
    shares = matrix / np.maximum(num_images, 1)[:, None]
    names = list(distinct(class_names[label] for label in chosen).values())
    longest = max(text_width(name, size=NAME_SIZE) for name in names)
    cell = max(CELL, MIN_SIDE / len(names))
    side = cell * len(names)
    is_turned = longest > cell - GAP  # names that do not fit below their column are rotated
    left, top = 2 * LINE + longest + GAP, LINE * len(lines) + 2 * GAP
    below = (longest * np.sqrt(0.5) if is_turned else 0) + LINE + 2 * GAP
    title_width = max(text_width(line, size=TITLE_SIZE) for line in lines)
    middle = max(left + side / 2, title_width / 2 + GAP)  # of the title
    width = max(left + side + SCALE_SPACE, middle + title_width / 2 + GAP)
    canvas = Canvas(width, top + side + below + LINE)
    for number, line in enumerate(lines):
        canvas.text(middle, GAP + (number + 0.5) * LINE, line, size=TITLE_SIZE, anchor="mm")
    colours = shades(shares.ravel(), COLOURS)
    for number, (count, colour) in enumerate(zip(matrix.ravel(), colours, strict=True)):
        row, column = divmod(number, len(names))
        x, y = left + column * cell, top + row * cell
        canvas.fill((x, y, x + cell, y + cell), colour)
        if count:
            canvas.text(
                x + cell / 2, y + cell / 2, f"{count}", size=COUNT_SIZE, anchor="mm",
                colour="white" if shares[row, column] > DARK else "black",
            )  # fmt: skip
    canvas.frame((left, top, left + side, top + side))
    end = top + side + 2 * GAP
    for number, name in enumerate(names):
        place = (number + 0.5) * cell
        canvas.text(left - GAP, top + place, name, size=NAME_SIZE, anchor="rm")
        if is_turned:
            canvas.text(left + place, end, name, size=NAME_SIZE, anchor="rm", angle=45)
        else:
            canvas.text(left + place, end + GAP, name, size=NAME_SIZE, anchor="mm")
    canvas.text(
        left + side / 2, top + side + below + LINE / 3, "predicted", size=TITLE_SIZE, anchor="mm"
    )
    canvas.text(LINE, top + side / 2, "actual", size=TITLE_SIZE, anchor="mm", angle=90)
    _draw_scale(canvas, left + side + LINE, top + side / 10, 0.8 * side)
    canvas.save(path)


def _draw_scale(canvas: Canvas, left: float, top: float, height: float) -> None:
    """Draw the scale of the colours."""
    right = left + SCALE_WIDTH
    steps = np.linspace(1, 0, round(height * 100))
    for number, colour in enumerate(shades(steps, COLOURS)):
        y = top + number / 100
        canvas.fill((left, y, right, min(y + 0.02, top + height)), colour)
    canvas.frame((left, top, right, top + height))
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = top + (1 - share) * height
        canvas.text(right + GAP, y, f"{share:.1f}", size=NAME_SIZE, anchor="lm")
    canvas.text(
        left + 0.55, top + height / 2, "share of the actual class",
        size=NAME_SIZE, anchor="mm", angle=90,
    )  # fmt: skip
