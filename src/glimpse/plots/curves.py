"""Draw curves of several runs, or over any other x, as PNGs; epochs.py draws the curves of one run.

matplotlib takes a second to import, so each function imports it only when it draws.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimpse.monitor import more_metrics
from glimpse.plots.colours import COLOURS
from glimpse.plots.save import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "os^Dv<>"
NUM_TICKS = 7  # at most, on an axis
DOTTED = 30  # curves with fewer points than this mark each point
METRICS = (("loss", "loss"), ("acc", "accuracy"))  # metric of a split and its axis label

Rows = Sequence[Mapping[str, Any]]  # rows of metrics.csv, by column
Points = list[tuple[float, float]]  # epochs and values


def draw_runs(runs: Mapping[str, Rows], path: Path) -> None:
    """Draw loss and accuracy of several runs, by name: one colour per run, dashes for val."""
    figure = new_figure(11, 4.2)
    for axes, (metric, title) in zip(figure.subplots(1, 2), METRICS, strict=True):
        for (name, rows), colour in zip(runs.items(), COLOURS, strict=False):
            for split in ("train", "val"):
                _plot(axes, rows, f"{split}/{metric}", label=f"{name}, {split}", colour=colour)
        _finish(axes, title)
    save_figure(figure, path)


def charts_of(rows: Rows) -> list[tuple[str, dict[str, Points]]]:
    """The title of each chart, and its curves by split: loss, accuracy and added metrics."""
    names = more_metrics(name for row in rows for name in row)
    added = dict.fromkeys(name.partition("/")[2] for name in names)
    charts = []
    for metric, title in (*METRICS, *((name, name) for name in added)):
        curves = {split: _points_of(rows, f"{split}/{metric}") for split in ("train", "val")}
        charts.append((title, {split: points for split, points in curves.items() if points}))
    return charts


def _points_of(rows: Rows, name: str) -> Points:
    """The epochs and the values of a column, without empty cells and values that are not finite."""
    found = [
        (float(row["epoch"]), float(row[name])) for row in rows if row.get(name) not in (None, "")
    ]
    return [point for point in found if math.isfinite(point[1])]


def _plot(axes: "Axes", rows: Rows, name: str, *, label: str, colour: str) -> None:
    if points := _points_of(rows, name):
        axes.plot(
            *zip(*points, strict=True),
            label=label,
            color=colour,
            linestyle="--" if name.startswith("val/") else "-",
            marker="." if len(points) < DOTTED else None,
        )


def _finish(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(NUM_TICKS, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(NUM_TICKS))
    if axes.lines:
        axes.legend()


def draw_shift(distances: Sequence[int], curves: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the accuracies of several runs on shifted images, by colour and marker.

    Args:
        distances: Shifts in pixels.
        curves: The accuracies of each run, one for each distance.
        path: Path of the PNG.
    """
    figure = new_figure(7, 4.2)
    axes = figure.add_subplot()
    for number, (name, values) in enumerate(curves.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(distances, values, label=name, color=colour, marker=marker, markersize=4)
    axes.set(xlabel="shift (pixels)", ylabel="accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)
