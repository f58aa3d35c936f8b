"""The models on each dataset, for the report: sentences, and a picture in the folder's figures/."""

from collections.abc import Sequence
from pathlib import Path

from glimpse.files import subfolder
from glimpse.plots.by_model import draw_by_model
from glimpse.runs.groups import Group
from glimpse.runs.ranking import rankings, told
from glimpse.runs.section import Section


def by_model(groups: Sequence[Group], folder: Path) -> Section | None:
    """Rank the models on each dataset; None if no two models have runs on the same images.

    Args:
        groups: The groups of runs.
        folder: The picture goes into its `figures/`.

    Raises:
        UserError: the picture cannot be written.
    """
    found = rankings(groups)
    if not found:
        return None
    is_accuracy = all(ranking.metric.endswith("/acc") for ranking in found)
    name = "accuracy_by_model.png" if is_accuracy else "result_by_model.png"
    picture = subfolder(folder, "figures") / name
    draw_by_model(found, picture)
    return Section("Models", told(found), [picture])
