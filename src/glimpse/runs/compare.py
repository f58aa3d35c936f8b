"""Two runs beside each other: settings that differ, results, and the curves of both in one picture.

Reads the run folders alone; what needs the networks' predictions is not here.
"""

from collections.abc import Sequence
from pathlib import Path

from glimpse.files import replacing
from glimpse.plots.colours import COLOURS
from glimpse.runs.folder import PLACES, Run, epochs_of


def differing_settings(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """(key, first's value, second's): the choices of data and model, then every setting."""
    sides = []
    for run in (first, second):
        named = {"data": run.data, "model": run.model}
        sides.append(named | {k: v for k, v in run.settings.items() if k not in PLACES})
    one, two = sides
    keys = ["data", "model", *sorted({*one, *two} - {"data", "model"})]
    return [(k, one.get(k, ""), two.get(k, "")) for k in keys if one.get(k) != two.get(k)]


def results(first: Run, second: Run) -> list[tuple[str, str, str, str]]:
    """(what, first's, second's, second less first) of every metric and number of the summaries."""
    rows = [("status", first.status, second.status, "")]
    for name in dict.fromkeys([*first.metrics, *second.metrics]):
        rows.append(_row(name, first.metrics.get(name), second.metrics.get(name), ".4f"))
    for name, form in (
        ("majority_acc", ".4f"), ("parameters", ",.0f"), ("epochs", ",.0f"), ("best_epoch", ",.0f"),
        ("images_per_second", ",.0f"), ("seconds", ",.1f"),
    ):  # fmt: skip
        rows.append(_row(name, first.number(name), second.number(name), form))
    return [row for row in rows if row[1] or row[2]]


def _row(name: str, one: float | None, two: float | None, form: str) -> tuple[str, str, str, str]:
    difference = "" if one is None or two is None else format(two - one, f"+{form}")
    shown = ("" if value is None else format(value, form) for value in (one, two))
    return (name, *shown, difference)  # type: ignore[return-value]


def draw(runs: Sequence[Run], path: Path) -> None:
    """Loss and accuracy of both splits of each run: a colour for a run, dashes for val."""
    from matplotlib.figure import Figure  # a second, only when drawing

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, metric, title in zip(axes, ("loss", "acc"), ("loss", "accuracy"), strict=True):
        for run, colour, place in zip(runs, COLOURS[:2], ("first", "second"), strict=True):
            rows = epochs_of(run.folder)
            for split, dashes in (("train", "-"), ("val", "--")):
                name = f"{split}/{metric}"
                points = [(row["epoch"], row[name]) for row in rows if name in row]
                if points:
                    axis.plot(
                        *zip(*points, strict=True),
                        dashes,
                        color=colour,
                        marker="." if len(points) < 30 else None,
                        label=f"{place} {run.model}, {split}",
                    )
        axis.set_xlabel("epoch")
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.lines:
            axis.legend()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
