"""Curves over epochs, or over anything else, as PNG.

matplotlib is imported when something is drawn: it takes a second.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimpse.plots.colours import COLOURS
from glimpse.plots.save import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 110
MARKERS = "os^Dv<>"
DOTTED = 30  # curves of fewer points show them
METRICS = (("loss", "loss"), ("acc", "accuracy"))  # of a split, and what to call it

Rows = Sequence[Mapping[str, Any]]  # of metrics.csv, by column


def draw_epochs(rows: Rows, path: Path) -> None:
    """Loss and accuracy of a run over its epochs: a colour and a dash for each split."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained", dpi=DPI)
    for axes, (metric, title) in zip(figure.subplots(1, 2), METRICS, strict=True):
        for split, colour in zip(("train", "val"), COLOURS, strict=False):
            _plot(axes, rows, f"{split}/{metric}", label=split, colour=colour)
        _finish(axes, title)
    save_figure(figure, path)


def draw_runs(runs: Mapping[str, Rows], path: Path) -> None:
    """Loss and accuracy of several runs, by name: a colour for a run, dashes for val."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=DPI)
    for axes, (metric, title) in zip(figure.subplots(1, 2), METRICS, strict=True):
        for (name, rows), colour in zip(runs.items(), COLOURS, strict=False):
            for split in ("train", "val"):
                _plot(axes, rows, f"{split}/{metric}", label=f"{name}, {split}", colour=colour)
        _finish(axes, title)
    save_figure(figure, path)


def _plot(axes: "Axes", rows: Rows, name: str, *, label: str, colour: str) -> None:
    points = [(float(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
    if points:
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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.lines:
        axes.legend()


def draw_curves_over(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    path: Path,
) -> None:
    """A PNG of several curves over the same x, told apart by colour and marker."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=DPI)
    axes = figure.add_subplot()
    for number, (name, values) in enumerate(curves.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(x, values, label=name, color=colour, marker=marker, markersize=4)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)
