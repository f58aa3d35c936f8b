"""What mattered in a sweep, for its report: sentences, and pictures beside the page."""

from collections.abc import Sequence
from pathlib import Path

from glimpse.files import subfolder
from glimpse.plots import sweep as plots
from glimpse.runs.folder import Run
from glimpse.runs.importance import importance, why_not
from glimpse.runs.section import Section
from glimpse.runs.sweep import read_sweep

TITLE = "What mattered"


def mattered(folder: Path, runs: Sequence[Run], place: Path) -> Section | None:
    """Analyse the sweep in a folder; None if the folder has no record of one.

    Args:
        folder: The sweep's folder.
        runs: The runs in it.
        place: The pictures go into its `figures/`. The sweep's own folder may be read-only.

    Raises:
        UserError: the pictures cannot be written.
    """
    sweep = read_sweep(folder, runs)
    if sweep is None:
        return None
    told = sweep.told()
    if not sweep.finished or not sweep.axes:
        return Section(TITLE, told)
    figures = subfolder(place, "figures")
    keys = [axis.key for axis in sweep.axes]
    shares = importance(sweep)
    pictures = []
    if shares:
        keys = list(shares)
        listed = ", ".join(f"{key} {share:.2f}" for key, share in shares.items())
        told.append(f"Importance for being among the best: {listed}.")
        pictures.append(figures / "sweep_importance.png")
        plots.draw_importance(shares, pictures[-1])
    elif len(keys) > 1:
        told.append(why_not(sweep))
    pictures.append(figures / "sweep_axes.png")
    plots.draw_axes(sweep, keys, pictures[-1])
    if len(keys) > 1:
        pictures.append(figures / "sweep_pairs.png")
        plots.draw_pairs(sweep, keys, pictures[-1])
    if sweep.num_datasets == 1:
        pictures.append(figures / "sweep_best_so_far.png")
        plots.draw_best_so_far(sweep, pictures[-1])
    return Section(TITLE, told, pictures)
