"""Draw loss and accuracy over the epochs as inline SVG, from metrics.csv and without matplotlib.

The splits differ in colour and in their dashes.
"""

import html
import math
from collections.abc import Mapping, Sequence

from glimpse.plots.colours import COLOURS
from glimpse.plots.curves import DOTTED, Points, charts_of

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 28, 40  # margins around the axes; the left one may grow
CHARACTER = 7  # the width of a digit
NUM_TICKS = 5
MAX_POINTS = 200  # points per line; longer lines are thinned
EQUAL = 1e-9  # relative difference; values that are closer are drawn as one
SHORTEST, LONGEST = 1e-300, 1e308  # spans that can be divided into ticks
PLAIN = (1e-4, 1e6)  # numbers that are written without an exponent

_TRAIN, _VAL = COLOURS[:2]
_VAL_ON_DARK, _TRAIN_ON_DARK = COLOURS[4:6]  # lighter
STYLE = f"""
.chart {{ max-width: 30rem; width: 100% }} .chart text {{ font-size: 12px; fill: currentColor }}
.chart path {{ fill: none; stroke-width: 2 }} .grid {{ stroke: currentColor; stroke-opacity: .15 }}
.train {{ stroke: {_TRAIN}; fill: {_TRAIN} }} .val {{ stroke: {_VAL}; fill: {_VAL} }}
path.val {{ stroke-dasharray: 6 3 }}
@media (prefers-color-scheme: dark) {{ .train {{ stroke: {_TRAIN_ON_DARK}; fill: {_TRAIN_ON_DARK} }}
.val {{ stroke: {_VAL_ON_DARK}; fill: {_VAL_ON_DARK} }} }}
"""


def curves(rows: Sequence[Mapping[str, float]]) -> str:
    """Charts of loss, accuracy and added metrics for both splits; empty if there are no epochs."""
    return "".join(_chart(title, lines) for title, lines in charts_of(rows) if lines)


def _chart(title: str, lines: Mapping[str, Points]) -> str:
    title = html.escape(title)
    points = [point for line in lines.values() for point in line]
    xs, ys = zip(*points, strict=True)
    x_low, x_high = min(xs), max(xs)
    x_ticks = [tick for tick in _ticks(x_low, x_high, whole=True) if x_low <= tick <= x_high]
    y_ticks = _ticks(min(ys), max(ys), whole=False)
    y_low, y_high = y_ticks[0], y_ticks[-1]
    numbers = [_number(tick, y_ticks) for tick in y_ticks]
    left = max(LEFT, 12 + CHARACTER * max(map(len, numbers)))

    def at(x: float, y: float) -> tuple[str, str]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_low) / (y_high - y_low)
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        return f"{left + across * (right - left):.1f}", f"{bottom - up * (bottom - TOP):.1f}"

    parts = [
        f"<svg class=chart viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{title} by epoch'>"
    ]
    for tick, number in zip(y_ticks, numbers, strict=True):
        _, y = at(x_low, tick)
        parts.append(f"<line class=grid x1={left} x2={WIDTH - RIGHT} y1={y} y2={y} />")
        parts.append(f"<text x={left - 6} y={y} dy=4 text-anchor=end>{number}</text>")
    for tick in x_ticks:
        x, _ = at(tick, y_low)
        parts.append(f"<line class=grid x1={x} x2={x} y1={TOP} y2={HEIGHT - BOTTOM} />")
        parts.append(f"<text x={x} y={HEIGHT - BOTTOM + 16} text-anchor=middle>{tick:g}</text>")
    middle = (left + WIDTH - RIGHT) / 2
    parts.append(f"<text x={middle} y={HEIGHT - 6} text-anchor=middle>epoch</text>")
    parts.append(f"<text x=4 y=16>{title}</text>")
    for i, (split, line) in enumerate(lines.items()):
        start = WIDTH - RIGHT - 150 + 80 * i
        parts.append(f"<path class={split} d='M{start} 12h26' />")
        parts.append(f"<text x={start + 32} y=16>{split}</text>")
        placed = [at(*point) for point in _thinned(line)]
        parts.append(f"<path class={split} d='M{'L'.join(f'{x} {y}' for x, y in placed)}' />")
        if len(placed) < DOTTED:
            parts += [f"<circle class={split} cx={x} cy={y} r=2.5 />" for x, y in placed]
    return "".join([*parts, "</svg>"])


def _thinned(line: Points) -> Points:
    """At most about MAX_POINTS points of the line, always including the last one."""
    step = math.ceil(len(line) / MAX_POINTS)
    return [*line[:-1:step], line[-1]]


def _ticks(low: float, high: float, *, whole: bool) -> list[float]:
    """About NUM_TICKS round numbers, from at or below `low` to at or above `high`."""
    largest = max(abs(low), abs(high))
    span = high - low if high - low > EQUAL * largest else largest or 1.0
    span = min(max(span, SHORTEST), LONGEST)
    unit = 10.0 ** math.floor(math.log10(span / NUM_TICKS))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor * NUM_TICKS >= span)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _number(tick: float, ticks: Sequence[float]) -> str:
    """Format a tick with enough digits to distinguish it from the others."""
    last = math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)  # the place of the last digit
    largest = max(map(abs, ticks))
    if PLAIN[0] <= largest < PLAIN[1]:
        return f"{tick:.{max(0, -last)}f}"
    first = math.floor(math.log10(largest) + 1e-9)
    return f"{tick:.{max(3, 1 + first - last)}g}"
