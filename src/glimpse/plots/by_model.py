"""Draw the results of each model on each dataset, with error bars over seeds."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from glimpse.plots.colours import COLOURS
from glimpse.plots.save import new_figure, save_figure
from glimpse.runs.ranking import Ranking
from glimpse.text import cut

COLUMNS = 3
MAX_PANELS = 12
MAX_MODELS = 20
NAME_CHARACTERS = 20
TITLE_CHARACTERS = 44


def draw_by_model(rankings: Sequence[Ranking], path: Path) -> None:
    """Draw a panel for each dataset: a dot for each model, its standard deviation as a bar.

    A panel shows the range of its values only, so that small differences can be seen. Its title
    gives the accuracy of the majority class, if the models are compared by accuracy.
    """
    drawn = rankings[:MAX_PANELS]
    names = list(dict.fromkeys(name for ranking in drawn for name in ranking.models))
    columns = min(COLUMNS, math.ceil(math.sqrt(len(drawn))) if len(drawn) > 2 else len(drawn))
    rows = math.ceil(len(drawn) / columns)
    tallest = max(min(len(ranking.models), MAX_MODELS) for ranking in drawn)
    figure = new_figure(4.2 * columns, (0.9 + 0.32 * tallest) * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, ranking in zip(panels, drawn, strict=False):
        models = dict(list(ranking.models.items())[:MAX_MODELS])
        for place, (name, value) in enumerate(models.items()):
            axes.errorbar(
                value.mean, place, xerr=value.std, fmt="o", markersize=5, capsize=3,
                color=COLOURS[names.index(name) % len(COLOURS)],
            )  # fmt: skip
            axes.annotate(
                f"{value.mean:.3f}", (value.mean, place), (0, 6), size=8, ha="center",
                textcoords="offset points",
            )  # fmt: skip
        labels = [cut(name, NAME_CHARACTERS) for name in models]
        axes.set_yticks(range(len(models)), labels, parse_math=False)
        axes.set_ylim(len(models) - 0.5, -0.7)  # the best on top
        axes.margins(x=0.12)
        axes.set_xlabel(ranking.metric.replace("/acc", " accuracy"), parse_math=False)
        majority = "" if ranking.majority is None else f" (majority {ranking.majority:.3f})"
        title = textwrap.fill(f"{ranking.data}{majority}", TITLE_CHARACTERS, max_lines=3)
        axes.set_title(title, size=10, parse_math=False)
        axes.grid(alpha=0.3)
    for axes in panels[len(drawn) :]:
        axes.axis("off")
    save_figure(figure, path)
