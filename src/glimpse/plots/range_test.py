"""Draw the curve of a learning-rate range test, with the suggested rates."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from glimpse.plots.colours import COLOURS
from glimpse.plots.save import new_figure, save_figure


def draw_range_test(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggested: Mapping[str, float],
    path: Path,
) -> None:
    """Draw the loss over the learning rate, from below the lowest loss to just above the first."""
    rates = rates[: len(losses)]
    figure = new_figure(7, 4)
    axis = figure.subplots()
    axis.plot(rates, losses, ".", color="0.75", label="each step")
    axis.plot(rates, smoothed, color=COLOURS[0], label="smoothed")
    for (name, rate), colour in zip(suggested.items(), COLOURS[1:4], strict=True):
        loss = np.interp(math.log(rate), np.log(rates), smoothed)
        axis.plot(rate, loss, "o", color=colour, label=f"{name}  {rate:.2g}")
        axis.axvline(rate, color=colour, alpha=0.4, linewidth=1)
    lowest, first = np.nanmin(losses), losses[0]
    margin = 0.1 * max(first - lowest, 0.5 * abs(first))
    axis.set_ylim(lowest - margin, first + 3 * margin)
    axis.set_xscale("log")
    axis.set_xlabel("learning rate (optimizer.lr)")
    axis.set_ylabel("train loss")
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)
