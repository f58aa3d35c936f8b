"""The table of runs, with a row for each group of them, as text, Markdown and CSV.

Each result is compared with two baselines: the majority class, and the simplest model on the same
images. groups.py forms the groups; page.py makes the HTML page.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glimpse.monitor import more_metrics
from glimpse.records import FINISHED
from glimpse.runs.folder import KILLED, Run
from glimpse.runs.groups import Group, named
from glimpse.text import plural, some

RECALL = "recall by class"
SIMPLEST = "simplest"  # in the row of the model with which the others are compared
NUM_WORST = 3  # classes whose recall the table shows


def shown(groups: Sequence[Group]) -> list[Group]:
    """The groups to display: without runs that never began training, unless there are no others."""
    return [member for member in groups if not member.is_refused] or list(groups)


def table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """The columns and rows to display, without columns that carry no information."""
    groups = shown(groups)
    more = more_metrics(name for member in groups for run in member.runs for name in run.metrics)
    cells = [_cells(member, more) for member in groups]
    silent = {"", FINISHED, SIMPLEST}  # the heading already gives this information
    columns = [name for name in cells[0] if not {row[name] for row in cells} <= silent]
    return columns, [[row[name] for name in columns] for row in cells]


def _worst(recall: Mapping[str, float]) -> str:
    return some([f"{name} {value:.2f}" for name, value in recall.items()], NUM_WORST)


def _cells(member: Group, more: Sequence[str]) -> dict[str, str]:
    def metric(name: str) -> str:
        found = member.metric(name)
        if found is None:
            return ""
        return f"{found} (n={found.num})" if found.num < len(member.repeats) else str(found)

    def number(name: str, form: str = ",.0f") -> str:
        found = member.number(name)
        return format(found, form) if found is not None else ""

    above = member.above_simplest
    return {
        "data": member.data,
        "model": member.model,
        "what differs": member.label,
        "status": member.status,
        "runs": str(len(member.runs)),
        "train/acc": metric("train/acc"),
        "val/acc": metric("val/acc"),
        "test/acc": metric("test/acc"),
        **{name: metric(name) for name in more},
        RECALL: _worst(member.class_recall),
        "majority": number("majority_acc", ".4f"),
        "vs simplest": SIMPLEST if member.simplest is member else "" if above is None else f"{above:+.4f}",
        "epochs": number("epochs"),
        "parameters": number("parameters"),
        "img/s": number("images_per_second"),
        "seconds": number("seconds"),
    }  # fmt: skip


# The columns to drop, in this order, if a terminal is too narrow.
LEAST_WANTED = ("img/s", "seconds", "epochs", "parameters", "majority", "train/acc")
NEEDED = ("data", "model", "what differs", "status", "runs", "val/acc", "test/acc", "vs simplest")
LAST_TO_DROP = "vs simplest"  # if that is not enough, after a `data` column with only one value
FOLDED = "what differs"  # this column may wrap over several lines
FOLDED_WIDTH = 30  # characters per wrapped line, or at least the longest word up to this length


def fitted(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int
) -> tuple[list[str], list[list[str]], list[str]]:
    """The columns that fit a terminal of `width` characters, their rows, and the hidden columns."""
    widths = {
        name: max(len(name), *(len(row[i]) for row in rows)) for i, name in enumerate(columns)
    }
    if FOLDED in widths:
        widths[FOLDED] = min(widths[FOLDED], FOLDED_WIDTH)
    others = [name for name in columns if name not in (*NEEDED, *LEAST_WANTED)]

    def drop(*names: str) -> None:
        for name in names:
            if sum(widths.values()) + 2 * len(widths) > width:
                widths.pop(name, None)

    drop(*LEAST_WANTED, *reversed(others))
    if FOLDED in widths:
        words = [word for row in rows for word in row[columns.index(FOLDED)].split()]
        widths[FOLDED] = min(widths[FOLDED], max(map(len, [*FOLDED.split(), *words])))
    if len({row[0] for row in rows}) == 1:
        drop("data")
    drop(LAST_TO_DROP)
    kept = [i for i, name in enumerate(columns) if name in widths]
    left_out = [name for name in columns if name not in widths]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows], left_out


def heading(groups: Sequence[Group]) -> list[str]:
    """Sentences that summarise the table and explain how to read it."""
    runs = [run for member in groups for run in member.runs]
    ended = Counter(run.status for run in runs)
    counts = ", ".join(f"{num:,} {status}" for status, num in ended.most_common())
    displayed = shown(groups)
    lines = [f"{plural(len(runs), 'run')} ({counts}) in {plural(len(displayed), 'group')}."]
    num_refused = len(runs) - sum(len(member.runs) for member in displayed)
    if num_refused:
        have = "has no row" if num_refused == 1 else "have no rows"
        lines.append(
            f"{plural(num_refused, 'run')} failed before training began and {have} in this table; "
            "the page of all runs lists them."
        )
    if any(len(member.runs) > 1 for member in groups):
        lines.append(
            f"Runs that differ only in {_repeats(groups)} share a row: mean ± sample standard deviation."
        )
    finished = [member for member in groups if member.status == FINISHED]
    if num_again := sum(len(member.runs) - len(member.repeats) for member in finished):
        lines.append(
            f"{plural(num_again, 'run')} repeated the training of another with the same seed: "
            "runs with the same seed count once, with their mean."
        )
    names = {run.monitor.name for member in displayed for run in member.runs}
    chosen = names.pop() if len(names) == 1 else "each run's monitor"
    lines.append(
        f"Accuracies are those of the best checkpoint by {chosen}, with all splits in evaluation "
        "mode. majority is the accuracy of the majority-class baseline."
    )
    if any(run.measured_images for member in displayed for run in member.runs):
        lines.append(
            "Some runs were measured on a part of their held-out images; the page of each says which."
        )
    if any(member.class_recall for member in displayed):
        lines.append(
            f"{RECALL} is the fraction of a class's images that are predicted correctly, on the test "
            "set or else on the validation set. It shows the worst classes of runs whose class sizes "
            "differ by more than 3 to 1."
        )
    simplest = dict.fromkeys(
        f"{member.simplest.model} on {member.simplest.data}"
        for member in displayed
        if member.simplest and member.simplest is not member
    )
    if simplest:
        compared = ", ".join(simplest)
        lines.append(
            "vs simplest is the accuracy on the test set, or else on the validation set, minus that "
            f"of the model with the fewest parameters on the same images ({compared})."
        )
    if KILLED in ended:
        lines.append(
            f"A {KILLED} run has not recorded its end, and no process seems to be working on it."
        )
    return lines


def _repeats(groups: Sequence[Group]) -> str:
    """The name of what differs between the runs of a row."""
    folds = [{run.settings.get("data.fold", "null") for run in member.runs} for member in groups]
    return "the seed or the fold" if any(len(found) > 1 for found in folds) else "the seed"


def problems(groups: Sequence[Group]) -> list[tuple[Run, str]]:
    """The runs with a problem, each with a description of it."""
    runs = [run for member in groups for run in member.runs]
    return [(run, f"{run.status}: {run.problem}") for run in runs if run.problem]


def as_markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table as Markdown."""

    def line(cells: Iterable[str]) -> str:
        escaped = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
        return f"| {' | '.join(escaped)} |"

    return "\n".join([line(columns), line("---" for _ in columns), *map(line, rows)])


def as_csv(groups: Sequence[Group]) -> str:
    """CSV with an unrounded row per group, and a column for each setting that differs anywhere."""
    names = sorted({name for g in groups for run in g.runs for name in run.metrics})
    keys = sorted({key for member in groups for key in member.differs})
    rows = []
    for member in groups:
        settings = named(member.settings)
        row: dict[str, Any] = {"data": member.data, "model": member.model}
        row |= {key: member.differs.get(key, settings.get(key)) for key in keys}
        row |= {"status": member.status, "n": len(member.repeats)}
        for name in names:
            found = member.metric(name)
            row[f"{name} mean"] = found.mean if found else None
            row[f"{name} std"] = found.std if found else None
            row[f"{name} n"] = found.num if found else 0
        row |= {"majority_acc": member.number("majority_acc")}
        row |= {"vs_simplest": member.above_simplest}
        row |= {"simplest": member.simplest.model if member.simplest else None}
        for name in ("epochs", "parameters", "images_per_second", "seconds"):
            row[name] = member.number(name)
        rows.append(row)
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
