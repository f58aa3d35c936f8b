"""Draw grids of labelled images. Lengths are in inches."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from glimpse.plots.canvas import Canvas, fitted, text_width

COLUMNS = 8
CELL = 1.1  # width of an image and the gap beside it
SIDE = 1.0  # longer side of an image
LINE = 0.125  # height of a line of a label
TITLE = 0.35
LABEL_CHARACTERS = 17  # about as many as fit the width of a cell in FONT_SIZE
LABEL_WIDTH = 1.06
FONT_SIZE = 7.5  # points
TITLE_SIZE = 10.0


def draw_grids(
    grids: Mapping[str, Tensor], labels: Mapping[str, Sequence[str]], path: Path
) -> None:
    """Write a PNG of grids side by side, with a title above each and a label below each image.

    Args:
        grids: Title to images (B, C, H, W) in [0, 1]; C is 1 or 3.
        labels: Title to B labels. A label is wrapped to at most two lines and then truncated. If it
            contains line breaks, it keeps its lines, and each is truncated to the width of the
            image.
        path: The PNG to write.
    """
    lines = {title: [_lines(label) for label in texts] for title, texts in labels.items()}
    num_lines = max(len(label) for texts in lines.values() for label in texts)
    num_images = len(next(iter(grids.values())))
    columns = min(COLUMNS, num_images)
    rows = -(-num_images // columns)
    tallest = max(min(1.0, g.shape[2] / g.shape[3]) for g in grids.values()) * SIDE
    margin = CELL - SIDE
    title_width = max(text_width(title, size=TITLE_SIZE, is_bold=True) for title in grids)
    grid_width = max(columns * CELL, title_width + 2 * margin)
    row_height = tallest + (num_lines + 1) * LINE
    width = len(grids) * grid_width + (len(grids) - 1) * CELL / 2
    canvas = Canvas(width, TITLE + rows * row_height)
    for number, (title, images) in enumerate(grids.items()):
        left = number * (grid_width + CELL / 2)
        canvas.text(left + margin, TITLE / 2, title, size=TITLE_SIZE, anchor="lm", is_bold=True)
        scale = SIDE / max(images.shape[2:])
        image_height, image_width = images.shape[2] * scale, images.shape[3] * scale
        for place, (image, label) in enumerate(zip(images, lines[title], strict=True)):
            row, column = divmod(place, columns)
            middle, top = left + (column + 0.5) * CELL, TITLE + row * row_height
            bottom = top + image_height
            box = (middle - image_width / 2, top, middle + image_width / 2, bottom)
            canvas.image(image, box)
            for line_number, line in enumerate(label, 1):  # aligned at the baseline of the text
                baseline = bottom + line_number * LINE
                canvas.text(middle, baseline, line, size=FONT_SIZE, anchor="ms")
    canvas.save(path)


def _lines(label: str) -> list[str]:
    if "\n" not in label:
        lines = textwrap.wrap(label, LABEL_CHARACTERS, max_lines=2, placeholder=" …")
    else:
        lines = label.split("\n")
    return [fitted(line, LABEL_WIDTH, size=FONT_SIZE) for line in lines]
