"""Draw the curves of a run over its epochs. Lengths are in inches.

Every run draws them, so this file uses Pillow, which is faster than matplotlib.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from glimpse.plots.canvas import Box, Canvas, text_width
from glimpse.plots.colours import COLOURS
from glimpse.plots.curves import DOTTED, NUM_TICKS, Points, Rows, charts_of

WIDTH, HEIGHT = 4.5, 3.5  # of a chart with its margins
LEFT, TOP, RIGHT, BOTTOM = 0.85, 0.3, 0.1, 0.5  # margins
MARGIN = 0.05  # between a curve and the frame, as a share of its range
FONT_SIZE = 9.0  # points
GRID = "#d8d8d8"


def draw_epochs(rows: Rows, path: Path) -> None:
    """Draw loss, accuracy and added metrics of a run over its epochs, with dashes for validation.

    Args:
        rows: The rows of metrics.csv, by column. Values that are not finite are left out.
        path: The PNG to write.
    """
    charts = charts_of(rows)
    canvas = Canvas(2 * WIDTH, -(-len(charts) // 2) * HEIGHT)
    for number, (title, curves) in enumerate(charts):
        x, y = number % 2 * WIDTH, number // 2 * HEIGHT
        box = (x + LEFT, y + TOP, x + WIDTH - RIGHT, y + HEIGHT - BOTTOM)
        _draw_chart(canvas, box, curves, title)
    canvas.save(path)


def _draw_chart(canvas: Canvas, box: Box, curves: Mapping[str, Points], title: str) -> None:
    left, top, right, bottom = box
    points = [point for curve in curves.values() for point in curve]
    first, last = _range([x for x, _ in points])
    lowest, highest = _range([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        along, up = (x - first) / (last - first), (y - lowest) / (highest - lowest)
        return left + along * (right - left), bottom - up * (bottom - top)

    for epoch, label in _ticks(first, last, are_whole=True):
        x, _ = place(epoch, lowest)
        canvas.curve([(x, top), (x, bottom)], GRID)
        canvas.text(x, bottom + 0.17, label, size=FONT_SIZE, anchor="ms")
    ticks = list(_ticks(lowest, highest))
    widest = max((text_width(label, size=FONT_SIZE) for _, label in ticks), default=0.0)
    for value, label in ticks:
        _, y = place(first, value)
        canvas.curve([(left, y), (right, y)], GRID)
        canvas.text(left - 0.06, y, label, size=FONT_SIZE, anchor="rm")
    canvas.text((left + right) / 2, bottom + 0.37, "epoch", size=FONT_SIZE, anchor="ms")
    beside = left - max(0.6, widest + 0.15)
    canvas.text(beside, (top + bottom) / 2, title, size=FONT_SIZE, anchor="mm", angle=90)
    canvas.frame(box)
    for number, (split, curve) in enumerate(curves.items()):
        is_val, middle = split == "val", top - 0.12
        colour = COLOURS[int(is_val)]
        places = [place(x, y) for x, y in curve]
        canvas.curve(places, colour, width=0.02, is_dashed=is_val, has_dots=len(curve) < DOTTED)
        begin = left + number * 0.9  # the legend
        canvas.curve(
            [(begin, middle), (begin + 0.35, middle)], colour, width=0.02, is_dashed=is_val
        )
        canvas.text(begin + 0.42, middle, split, size=FONT_SIZE, anchor="lm")


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: all values and a margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = MARGIN * (high - low) or MARGIN * abs(low) or MARGIN
    return low - margin, high + margin


def _ticks(low: float, high: float, *, are_whole: bool = False) -> Iterable[tuple[float, str]]:
    """Round numbers on an axis, and their labels, which have the same number of decimals."""
    from matplotlib.ticker import MaxNLocator

    # Few epochs would otherwise have ticks at fractions.
    least = 1 if are_whole else 2
    found = MaxNLocator(NUM_TICKS, integer=are_whole, min_n_ticks=least).tick_values(low, high)
    ticks = [float(tick) for tick in found if low <= tick <= high]
    texts = [f"{tick:.6g}" for tick in ticks]
    if not any("e" in text for text in texts):
        decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
        texts = [f"{tick:.{decimals}f}" for tick in ticks]
    return zip(ticks, texts, strict=True)
