"""The table of runs, with a row for each group of runs that differ only in their seed or fold.

Differences are taken from the composed configurations, so an experiment and the same keys typed by
hand form one group. Each result is compared with two baselines: the majority class, and the
simplest model on the same images. page.py makes the HTML page.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, sqrt
from statistics import fmean
from typing import Any

from glimpse.monitor import Monitor, monitor_of, more_metrics
from glimpse.runs.folder import FINISHED, KILLED, Run
from glimpse.runs.settings import PLACES

NOT_SETTINGS = ("seed", "data.fold", *PLACES)

# Keys of `data` that do not change which images are in which split.
NOT_SPLITS = {
    f"data.{key}"
    for key in (
        "batch_size", "normalize", "cache", "on_bad_file", "url", "sha256", "num_workers",
        "presize", "fit", "size", "sampling",
    )
}  # fmt: skip

TARGET = "_target_"
RECALL = "recall by class"
NUM_WORST = 3  # classes whose recall the table shows
LONGEST_VALUE = 300  # characters of a setting that the table shows


@dataclass(frozen=True)
class Statistic:
    """The mean and the sample standard deviation (None for a single run) of one quantity."""

    mean: float
    std: float | None
    num: int

    def __str__(self) -> str:
        spread = f" ± {self.std:.4f}" if self.std is not None else ""
        return f"{self.mean:.4f}{spread}"


@dataclass(eq=False)
class Group:
    """Runs with the same settings and status that differ only in their seed or fold.

    Attributes:
        runs: The runs of the group.
        settings: The settings that the runs share.
        differs: The settings that vary among the runs of the same data and model.
        simplest: The group to compare with; the group itself if it is the simplest.
        monitor: What the groups are compared by.
    """

    runs: list[Run]
    settings: dict[str, str]
    monitor: Monitor
    differs: dict[str, str] = field(default_factory=dict)
    simplest: "Group | None" = None

    def differ_in(self, settings: Mapping[str, str]) -> None:
        """Note the settings that distinguish this group from others of the same data and model."""
        self.differs = dict(settings)

    def compare_with(self, simplest: "Group") -> None:
        """Note the group with the simplest model on the same images."""
        self.simplest = simplest

    @property
    def data(self) -> str:
        return self.runs[0].data

    @property
    def model(self) -> str:
        return self.runs[0].model

    @property
    def status(self) -> str:
        return self.runs[0].status

    @property
    def label(self) -> str:
        """The differing settings as they would be typed."""
        if not self.runs[0].settings:
            return "(settings not recorded)"
        return " ".join(f"{key}={_short(value)}" for key, value in self.differs.items())

    @cached_property
    def accuracy(self) -> float | None:
        """The mean accuracy on the reported split."""
        found = self.metric(f"{self.runs[0].reported}/acc")
        return found.mean if found else None

    @cached_property
    def rank(self) -> float:
        """The mean of the monitor, higher is better. It orders the groups."""
        found = self.metric(self.monitor.name)
        return self.monitor.sign * found.mean if found else -inf

    @property
    def best(self) -> Run:
        return max(self.runs, key=lambda run: self.monitor.rank(run.metrics) or (-inf, 0.0))

    @property
    def class_recall(self) -> dict[str, float]:
        """The mean recall of each class over the runs, the lowest first; empty if not recorded."""
        names = {name for run in self.runs for name in run.class_recall}
        found = {
            name: _statistic(run.class_recall.get(name) for run in self.runs) for name in names
        }
        means = {name: one.mean for name, one in found.items() if one}
        return dict(sorted(means.items(), key=lambda item: (item[1], item[0])))

    @property
    def above_simplest(self) -> float | None:
        if self.simplest is None or self.accuracy is None or self.simplest.accuracy is None:
            return None
        return self.accuracy - self.simplest.accuracy

    def metric(self, name: str) -> Statistic | None:
        return _statistic(run.metrics.get(name) for run in self.runs)

    def number(self, name: str) -> float | None:
        """The mean of a number in the summaries."""
        found = _statistic(run.number(name) for run in self.runs)
        return found.mean if found else None


def _short(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…"


def _statistic(found: Iterable[float | None]) -> Statistic | None:
    values = [value for value in found if value is not None]
    if not values:
        return None
    mean, num = fmean(values), len(values)
    # statistics.stdev is exact because it uses fractions, but too slow for a thousand runs.
    std = sqrt(sum((v - mean) ** 2 for v in values) / (num - 1)) if num > 1 else None
    return Statistic(mean, std, num)


def group(runs: Sequence[Run]) -> list[Group]:
    """Group the runs. Sort the groups by data, then the best first.

    The best is that by the runs' monitor, or by val/acc if they differ in it.
    """
    found: dict[tuple[Any, ...], Group] = {}
    monitors = {run.monitor for run in runs}
    monitor = monitors.pop() if len(monitors) == 1 else monitor_of({})
    for run in runs:
        settings = {k: v for k, v in run.settings.items() if k not in NOT_SETTINGS}
        # Runs with unknown settings are not averaged.
        same = tuple(sorted(settings.items())) or (str(run.folder),)
        key = (run.data, run.model, run.status, run.reported, same)
        found.setdefault(key, Group([], settings, monitor)).runs.append(run)
    groups = sorted(found.values(), key=lambda g: (g.data, -g.rank, g.model))
    for section in _by(groups, lambda g: (g.data, g.model)).values():
        keys = _differing([g.settings for g in section])
        for member in section:
            member.differ_in(_named({k: member.settings[k] for k in keys if k in member.settings}))
    for same_images in rivals(groups):
        _set_simplest(same_images)
    return groups


def rivals(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups by their training and evaluation images: only those with the same can be compared."""
    return list(_by(groups, _images).values())


def _by(groups: Sequence[Group], key: Any) -> dict[Any, list[Group]]:
    found: dict[Any, list[Group]] = {}
    for member in groups:
        found.setdefault(key(member), []).append(member)
    return found


def _images(member: Group) -> tuple[Any, ...]:
    """A key that is equal for groups with the same training and evaluation images."""
    own = {k: v for k, v in member.settings.items() if k.startswith("data.")}
    kept = sorted((k, v) for k, v in own.items() if k not in NOT_SPLITS)
    return (member.data, member.runs[0].reported, *kept)


def _set_simplest(rivals: Sequence[Group]) -> None:
    """Set the rivals' `simplest`: the finished group with the fewest parameters, best first."""
    sized = [
        (parameters, -g.rank, i)
        for i, g in enumerate(rivals)
        if g.status == FINISHED and g.accuracy is not None
        if (parameters := g.number("parameters")) is not None
    ]
    for member in rivals if sized else ():
        member.compare_with(rivals[min(sized)[2]])


def _differing(all_settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys with differing values.

    If a `_target_` differs, its arguments are compared only among equal targets. For example,
    `optimizer=Adam` already implies the arguments that Adam has and SGD does not.
    """
    keys = sorted({key for settings in all_settings for key in settings})
    differing = []
    for key in keys:
        if len({settings.get(key) for settings in all_settings}) == 1:
            continue
        parts = key.split(".")
        depth = len(parts) - (2 if parts[-1] == TARGET else 1)
        owners = [".".join([*parts[: i + 1], TARGET]) for i in range(depth)]
        values: dict[tuple[str | None, ...], set[str | None]] = {}
        for settings in all_settings:
            owned_by = tuple(settings.get(owner) for owner in owners)
            values.setdefault(owned_by, set()).add(settings.get(key))
        if any(len(found) > 1 for found in values.values()):
            differing.append(key)
    return differing


def _named(settings: Mapping[str, str]) -> dict[str, str]:
    """Shorten `optimizer._target_=torch.optim.Adam` to `optimizer=Adam`."""
    return {
        key.removesuffix(f".{TARGET}"): value.rpartition(".")[2] if key.endswith(TARGET) else value
        for key, value in settings.items()
    }


def table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """The columns and rows to display, without columns that carry no information."""
    more = more_metrics(name for member in groups for run in member.runs for name in run.metrics)
    cells = [_cells(member, more) for member in groups]
    silent = {"", FINISHED, "simplest"}  # the heading already gives this information
    columns = [name for name in cells[0] if not {row[name] for row in cells} <= silent]
    return columns, [[row[name] for name in columns] for row in cells]


def _worst(recall: Mapping[str, float]) -> str:
    listed = [f"{name} {value:.2f}" for name, value in list(recall.items())[:NUM_WORST]]
    return ", ".join(listed) + (" …" if len(recall) > NUM_WORST else "")


def _cells(member: Group, more: Sequence[str]) -> dict[str, str]:
    def metric(name: str) -> str:
        return str(member.metric(name) or "")

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
        "vs simplest": "simplest" if member.simplest is member else "" if above is None else f"{above:+.4f}",
        "epochs": number("epochs"),
        "parameters": number("parameters"),
        "img/s": number("images_per_second"),
        "seconds": number("seconds"),
    }  # fmt: skip


# The columns to drop, in this order, if a terminal is too narrow.
LEAST_WANTED = ("img/s", "seconds", "epochs", "parameters", "majority", "train/acc")
NEEDED = ("data", "model", "what differs", "status", "runs", "val/acc", "test/acc", "vs simplest")
FOLDED = "what differs"  # this column may wrap over several lines
FOLDED_WIDTH = 30  # characters per wrapped line


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
    for name in (*LEAST_WANTED, *reversed(others)):
        if sum(widths.values()) + 2 * len(widths) > width:
            widths.pop(name, None)
    kept = [i for i, name in enumerate(columns) if name in widths]
    left_out = [name for name in columns if name not in widths]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows], left_out


def heading(groups: Sequence[Group]) -> list[str]:
    """Sentences that summarise the table and explain how to read it."""
    runs = [run for member in groups for run in member.runs]
    ended = Counter(run.status for run in runs)
    counts = ", ".join(f"{num:,} {status}" for status, num in ended.most_common())
    lines = [f"{_counted(len(runs), 'run')} ({counts}) in {_counted(len(groups), 'group')}."]
    if any(len(member.runs) > 1 for member in groups):
        lines.append(
            f"Runs that differ only in {_repeats(groups)} share a row: mean ± sample standard deviation."
        )
    names = {run.monitor.name for run in runs}
    chosen = names.pop() if len(names) == 1 else "each run's monitor"
    lines.append(
        f"Accuracies are those of the best checkpoint by {chosen}, with all splits in evaluation "
        "mode. majority is the accuracy of the majority-class baseline."
    )
    if any(member.class_recall for member in groups):
        lines.append(
            f"{RECALL} is the fraction of a class's images that are predicted correctly, on the test "
            "set or else on the validation set. It shows the worst classes of runs whose class sizes "
            "differ by more than 3 to 1."
        )
    simplest = {
        member.simplest.data: member.simplest.model
        for member in groups
        if member.simplest and member.simplest is not member
    }
    if simplest:
        named = ", ".join(f"{model} on {data}" for data, model in simplest.items())
        lines.append(
            "vs simplest is the accuracy on the test set, or else on the validation set, minus that "
            f"of the model with the fewest parameters on the same images ({named})."
        )
    if KILLED in ended:
        lines.append(f"A {KILLED} run has no summary.json and has not written for a while.")
    return lines


def _repeats(groups: Sequence[Group]) -> str:
    """What the runs of a row differ in."""
    folds = [{run.settings.get("data.fold", "null") for run in member.runs} for member in groups]
    return "the seed or the fold" if any(len(found) > 1 for found in folds) else "the seed"


def _counted(num: int, what: str) -> str:
    return f"{num:,} {what}" if num == 1 else f"{num:,} {what}s"


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
        named = _named(member.settings)
        row: dict[str, Any] = {"data": member.data, "model": member.model}
        row |= {key: named.get(key) for key in keys}
        row |= {"status": member.status, "n": len(member.runs)}
        for name in names:
            found = member.metric(name)
            row[f"{name} mean"] = found.mean if found else None
            row[f"{name} std"] = found.std if found else None
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
