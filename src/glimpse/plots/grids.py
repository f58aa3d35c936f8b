"""Draw grids of labelled images. Lengths are in inches."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from glimpse.plots.save import save_figure

COLUMNS = 8
CELL = 1.1  # width of an image and the gap beside it
SIDE = 1.0  # longer side of an image
LINE = 0.125  # height of a line of a label
TITLE = 0.35
LABEL_CHARACTERS = 17  # as many as fit the width of a cell in FONT_SIZE
FONT_SIZE = 7.5  # points
DPI = 128  # images of 8, 16, 32 and 64 pixels are enlarged by a whole number


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
    from matplotlib.figure import Figure  # takes a second to import

    lines = {title: [_lines(label) for label in texts] for title, texts in labels.items()}
    num_lines = max(len(label) for texts in lines.values() for label in texts)
    num_images = len(next(iter(grids.values())))
    columns = min(COLUMNS, num_images)
    rows = -(-num_images // columns)
    tallest = max(min(1.0, g.shape[2] / g.shape[3]) for g in grids.values()) * SIDE
    grid_width, row_height = columns * CELL, tallest + (num_lines + 1) * LINE
    width = len(grids) * grid_width + (len(grids) - 1) * CELL / 2
    height = TITLE + rows * row_height
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.set_layout_engine("none")  # overrides the settings of a notebook
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for number, (title, images) in enumerate(grids.items()):
        left = number * (grid_width + CELL / 2)
        axes.text(left + CELL - SIDE, TITLE / 2, title, va="center", weight="bold")
        scale = SIDE / max(images.shape[2:])
        image_height, image_width = images.shape[2] * scale, images.shape[3] * scale
        for place, (image, label) in enumerate(zip(images.cpu(), lines[title], strict=True)):
            row, column = divmod(place, columns)
            middle, top = left + (column + 0.5) * CELL, TITLE + row * row_height
            bottom = top + image_height
            box = (middle - image_width / 2, middle + image_width / 2, bottom, top)
            axes.imshow(image.permute(1, 2, 0).numpy(), extent=box, cmap="gray", vmin=0, vmax=1)
            for line_number, line in enumerate(label, 1):  # aligned at the baseline of the text
                baseline = bottom + line_number * LINE
                axes.text(middle, baseline, line, ha="center", size=FONT_SIZE, parse_math=False)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    save_figure(figure, path)


def _lines(label: str) -> list[str]:
    if "\n" not in label:
        return textwrap.wrap(label, LABEL_CHARACTERS, max_lines=2, placeholder=" …")
    return [
        line if len(line) <= LABEL_CHARACTERS else f"{line[: LABEL_CHARACTERS - 1]}…"
        for line in label.split("\n")
    ]
