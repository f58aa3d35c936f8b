"""Compare two runs: the settings that differ, and the results.

This file reads only the run folders. Comparisons that need predictions are in agreement.py.
"""

from glimpse.runs.folder import Run
from glimpse.runs.settings import PLACES


def differing_settings(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """(key, first value, second value) rows: data and model first, then the settings."""
    sides = []
    for run in (first, second):
        named = {"data": run.data, "model": run.model}
        sides.append(named | {k: v for k, v in run.settings.items() if k not in PLACES})
    one, two = sides
    keys = ["data", "model", *sorted({*one, *two} - {"data", "model"})]
    return [(k, one.get(k, ""), two.get(k, "")) for k in keys if one.get(k) != two.get(k)]


def results(first: Run, second: Run) -> list[tuple[str, str, str, str]]:
    """(name, first value, second value, second - first) rows of all metrics and summary numbers."""
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
