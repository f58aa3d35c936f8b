"""Draw a sweep: importances, the metric over each axis and pair of axes, and the best so far."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glimpse.plots.colours import COLOURS
from glimpse.plots.save import new_figure, save_figure
from glimpse.runs.sweep import Axis, Setting, Sweep
from glimpse.text import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
MAX_AXES = 9  # drawn in a figure, the most important first
MAX_IN_PAIRS = 4  # axes of which all pairs are drawn
JITTER = 0.15  # of the distance between two words on an axis
WIDE_WORDS = 28  # if all words on an axis have more characters than this, they are rotated
NAME_CHARACTERS = 18
MOST_WORDS = 12  # that fit along an axis; of more, only every second is written, or every third …

# The label, the colour and the marker of settings.
FINISHED, PRUNED = ("finished", COLOURS[0], "o"), ("stopped early", COLOURS[1], "x")


def draw_importance(shares: Mapping[str, float], path: Path) -> None:
    """Draw a bar for the share of each axis."""
    names, values = list(shares)[:MAX_AXES][::-1], list(shares.values())[:MAX_AXES][::-1]
    figure = new_figure(6, 0.8 + 0.35 * len(names))
    axes = figure.subplots()
    axes.barh(names, values, color=COLOURS[0])
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:.2f}", va="center", size=8)
    axes.set_xlim(0, max(values) * 1.12 or 1)
    axes.set_xlabel("importance (shares add up to 1)")
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    save_figure(figure, path)


def draw_axes(sweep: Sweep, keys: Sequence[str], path: Path) -> None:
    """Draw the metric over each axis. Bars show the standard deviation over seeds.

    Args:
        sweep: The sweep.
        keys: Its axes in the order to draw them.
        path: The PNG to write.
    """
    drawn = _by_key(sweep, keys)[:MAX_AXES]
    columns = min(COLUMNS, math.ceil(math.sqrt(len(drawn))) if len(drawn) > COLUMNS else len(drawn))
    rows = -(-len(drawn) // columns)
    figure = new_figure(4 * columns, 3.2 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, axis in zip(grid.flat, drawn, strict=False):
        kinds = ((sweep.pruned, PRUNED), (sweep.finished, FINISHED))
        for settings, (label, colour, marker) in kinds:
            shown = [s for s in settings if axis.key in s.values]
            if shown:
                axes.errorbar(
                    _places(axis, shown),
                    [s.score for s in shown],
                    yerr=[s.spread for s in shown] if any(s.spread for s in shown) else None,
                    fmt=marker, color=colour, markersize=4, alpha=0.7, linewidth=1, label=label,
                )  # fmt: skip
        _label(axes, axis, along="x")
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(drawn) :]:
        axes.axis("off")
    for row in grid:
        row[0].set_ylabel(sweep.metric)
    if sweep.pruned:
        grid.flat[0].legend(fontsize=8)
    save_figure(figure, path)


def draw_pairs(sweep: Sweep, keys: Sequence[str], path: Path) -> None:
    """Draw the finished settings over each pair of the first axes; the colour is the metric."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    pairs = list(combinations(_by_key(sweep, keys)[:MAX_IN_PAIRS], 2))
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = new_figure(4 * columns + 0.8, 3.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    scores = [s.score for s in sweep.finished]
    # The better half of the scores takes half of the colours, because its differences matter most.
    worst = float(np.median(scores))
    best = _better(sweep)(scores)
    norm = Normalize(min(best, 2 * worst - best), max(best, 2 * worst - best))
    colours = "viridis_r" if sweep.mode == "min" else "viridis"
    for axes, (one, other) in zip(grid.flat, pairs, strict=False):
        shown = [s for s in sweep.finished if one.key in s.values and other.key in s.values]
        shown.sort(key=lambda s: s.score, reverse=sweep.mode == "min")  # the best on top
        axes.scatter(
            _places(one, shown), _places(other, shown), c=[s.score for s in shown],
            norm=norm, cmap=colours, s=24, edgecolors="0.4", linewidths=0.3,
        )  # fmt: skip
        _label(axes, one, along="x")
        _label(axes, other, along="y")
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(pairs) :]:
        axes.axis("off")
    figure.colorbar(
        ScalarMappable(norm, colours), ax=grid, label=sweep.metric, extend="both", shrink=0.9
    )
    save_figure(figure, path)


def draw_best_so_far(sweep: Sweep, path: Path) -> None:
    """Draw each setting, and the best so far, over the time that all trainings took together."""
    figure = new_figure(6.5, 3.6)
    axes = figure.subplots()
    unit, seconds = _unit(sum(s.seconds for s in sweep.settings))
    times = list(accumulate(s.seconds / seconds for s in sweep.settings))
    timed = list(zip(times, sweep.settings, strict=True))
    finished = [(time, s.score) for time, s in timed if s.is_finished]
    pruned = [(time, s.score) for time, s in timed if s.is_pruned]
    for points, (label, colour, marker) in ((finished, FINISHED), (pruned, PRUNED)):
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=4, label=label)
    ends, scores = zip(*finished, strict=True)
    best = list(accumulate(scores, _better(sweep)))
    axes.step(
        [*ends, times[-1]], [*best, best[-1]], where="post", color=COLOURS[2], label="best so far"
    )
    axes.set(xlabel=f"{unit} of training, one job after another", ylabel=sweep.metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def _better(sweep: Sweep) -> Callable[..., float]:
    """The function that returns the better of two scores, or the best of several."""
    return min if sweep.mode == "min" else max


def _unit(seconds: float) -> tuple[str, float]:
    """The unit in which a time is easy to read, and its length in seconds."""
    if seconds > 7200:
        return "hours", 3600.0
    return ("minutes", 60.0) if seconds > 120 else ("seconds", 1.0)


def _by_key(sweep: Sweep, keys: Sequence[str]) -> list[Axis]:
    axes = {axis.key: axis for axis in sweep.axes}
    return [axes[key] for key in keys]


def _places(axis: Axis, settings: Sequence[Setting]) -> NDArray[np.float64]:
    """The positions of settings on an axis. Settings with the same word are spread a little."""
    places = np.array([axis.places[s.values[axis.key]] for s in settings])
    if not axis.is_number:
        places = places + np.random.default_rng(0).uniform(-JITTER, JITTER, len(places))
    return places


def _label(axes: "Axes", axis: Axis, *, along: str) -> None:
    """Name an axis and its scale."""
    drawn = axes.xaxis if along == "x" else axes.yaxis
    drawn.set_label_text(axis.key, parse_math=False)
    if axis.is_log:
        axes.set(**{f"{along}scale": "log"})
    elif not axis.is_number:
        step = math.ceil(len(axis.places) / MOST_WORDS)
        words = [cut(word, NAME_CHARACTERS) for word in axis.places][::step]
        axes.set(**{f"{along}lim": (-0.5, len(axis.places) - 0.5)})
        drawn.set_ticks(list(axis.places.values())[::step], words, parse_math=False)
        if along == "x" and len("".join(words)) > WIDE_WORDS:
            for label in axes.get_xticklabels():  # their ends are at the ticks
                label.set(rotation=30, ha="right", rotation_mode="anchor")
