"""Groups of runs that differ only in their seed or fold, with the mean and spread of each figure.

Differences are taken from the composed configurations, so an experiment and the same keys typed by
hand form one group.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, sqrt
from statistics import fmean
from typing import Any

from glimpse.monitor import Monitor, monitor_of
from glimpse.records import FINISHED
from glimpse.runs.folder import Run
from glimpse.runs.settings import PLACES, REPEATS
from glimpse.text import cut, decimals

NOT_SETTINGS = (*REPEATS, *PLACES)
LOGGERS = "logger."  # begins settings that change no result

# Keys of `data` that do not change which images are in which split.
NOT_SPLITS = {
    f"data.{key}"
    for key in (
        "batch_size", "global_batch_size", "normalize", "cache", "on_bad_file", "url", "sha256", "num_workers",
        "presize", "fit", "size", "sampling",
    )
}  # fmt: skip

# Not a setting that can be typed: which images and labels a dataset of this name had.
CONTENT = "data.content"

# Settings with which only a part of the held-out images is measured.
LIMITS = ("trainer.limit_val_batches", "trainer.limit_test_batches", "trainer.overfit_batches")

TARGET = "_target_"
LONGEST_VALUE = 300  # characters of a setting that the table shows


@dataclass(frozen=True)
class Statistic:
    """The mean and the sample standard deviation (None for a single run) of one quantity."""

    mean: float
    std: float | None
    num: int

    def __str__(self) -> str:
        spread = f" ± {decimals(self.std)}" if self.std is not None else ""
        return f"{decimals(self.mean)}{spread}"


@dataclass(eq=False)
class Group:
    """Runs with the same settings and status that differ only in their seed or fold.

    Attributes:
        runs: The runs of the group.
        settings: The settings that the runs share.
        differs: The settings that vary among the runs of the same data and model.
        simplest: The group to compare with; the group itself if it is the simplest.
        monitor: The metric by which the groups are compared.
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
    def is_refused(self) -> bool:
        """Whether its runs failed before their training began."""
        return self.runs[0].is_refused

    @property
    def label(self) -> str:
        """The differing settings as they would be typed."""
        if not self.runs[0].settings:
            return "(settings not recorded)"
        return " ".join(f"{key}={cut(value, LONGEST_VALUE)}" for key, value in self.differs.items())

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

    @cached_property
    def repeats(self) -> list[list[Run]]:
        """The runs by seed and fold. Runs with the same seed and fold are one training, repeated."""
        found: dict[tuple[Any, ...], list[Run]] = {}
        for run in self.runs:
            found.setdefault((run.seed, run.settings.get("data.fold")), []).append(run)
        return list(found.values())

    @cached_property
    def class_recall(self) -> dict[str, float]:
        """The mean recall of each class over the seeds, the lowest first; empty if not recorded."""
        names = {name for run in self.runs for name in run.class_recall}
        found = {name: self._recall(name) for name in names}
        means = {name: one.mean for name, one in found.items() if one}
        return dict(sorted(means.items(), key=lambda item: (item[1], item[0])))

    @property
    def above_simplest(self) -> float | None:
        if self.simplest is None or self.accuracy is None or self.simplest.accuracy is None:
            return None
        return self.accuracy - self.simplest.accuracy

    def _recall(self, name: str) -> Statistic | None:
        return self._over_repeats(lambda run: run.class_recall.get(name))

    def metric(self, name: str) -> Statistic | None:
        """The statistic of a metric over the seeds and folds."""
        return self._over_repeats(lambda run: run.metrics.get(name))

    def number(self, name: str) -> float | None:
        """The mean of a number in the summaries."""
        found = self._over_repeats(lambda run: run.number(name))
        return found.mean if found else None

    def _over_repeats(self, value_of: Callable[[Run], float | None]) -> Statistic | None:
        """The statistic over the seeds and folds, with the mean of the runs that repeat one."""
        means = (statistic(map(value_of, same)) for same in self.repeats)
        return statistic(one.mean if one else None for one in means)


def statistic(found: Iterable[float | None]) -> Statistic | None:
    """The statistic of the known values; None if there are none."""
    values = [value for value in found if value is not None]
    if not values:
        return None
    num = len(values)
    if min(values) == max(values):  # the sums below would round
        return Statistic(values[0], 0.0 if num > 1 else None, num)
    mean = fmean(values)
    # statistics.stdev is exact because it uses fractions, but too slow for a thousand runs.
    std = sqrt(sum((v - mean) ** 2 for v in values) / (num - 1)) if num > 1 else None
    return Statistic(mean, std, num)


def group(runs: Sequence[Run]) -> list[Group]:
    """Group the runs. Sort the groups by data, then the best first.

    The groups are ranked as `common_monitor` says. Runs that failed before their training began
    influence neither this nor which settings differ. Runs with unknown settings do not influence
    which settings differ.
    """
    found: dict[tuple[Any, ...], Group] = {}
    monitor = common_monitor([run for run in runs if not run.is_refused] or runs)
    contents: dict[str, set[str]] = {}
    for run in runs:
        contents.setdefault(run.data, set()).update(filter(None, [run.data_id]))
    for run in runs:
        settings = telling_settings(run)
        if run.data_id and len(contents[run.data]) > 1:
            settings[CONTENT] = run.data_id
        # Runs with unknown settings are not averaged.
        same = tuple(sorted(settings.items())) if run.settings else (str(run.folder),)
        key = (run.data, run.model, run.status, run.is_refused, run.reported, same)
        found.setdefault(key, Group([], settings, monitor)).runs.append(run)
    groups = sorted(found.values(), key=lambda g: (g.data, -g.rank, g.model))
    for section in _by(groups, lambda g: (g.data, g.model)).values():
        known = [g for g in section if g.runs[0].settings]
        trained = [g for g in known if not g.is_refused] or known
        keys = differing([g.settings for g in trained])
        for member in section:
            member.differ_in(named(_chosen(member.settings, keys)))
    for same_images in rivals(groups):
        _set_simplest(same_images)
    return groups


def common_monitor(runs: Iterable[Run]) -> Monitor:
    """The monitor of all the runs, or val/acc if they cannot be compared by it.

    They cannot if the monitors differ, or if they monitor a loss and their losses differ.
    """
    runs = list(runs)
    monitors = {run.monitor for run in runs}
    if len(monitors) > 1:
        return monitor_of({})
    monitor = monitors.pop()
    keys = sorted({key for run in runs for key in run.settings})
    differ = {key for key in keys if len({run.settings.get(key) for run in runs}) > 1}
    return monitor_of({}) if any(is_other_loss(key, monitor.name) for key in differ) else monitor


def tells_apart(key: str, metric: str) -> bool:
    """Whether values of a metric cannot be compared if this setting differs: with other images, or
    if the metric is another loss."""
    return is_other_loss(key, metric) or changes_images(key)


def telling_settings(run: Run) -> dict[str, str]:
    """The settings of a run that its result may depend on, besides its seed and fold."""
    return {
        key: value
        for key, value in run.settings.items()
        if key not in NOT_SETTINGS and not key.startswith(LOGGERS)
    }


def is_other_loss(key: str, metric: str) -> bool:
    is_loss = metric.rpartition("/")[2].startswith("loss")
    return is_loss and key.partition(".")[0] == "loss"


def changes_images(key: str) -> bool:
    """Whether a setting decides which images are measured, or in which split an image is."""
    is_of_data = key.partition(".")[0] == "data"
    return (is_of_data and key not in NOT_SPLITS) or key in LIMITS


def rivals(groups: Sequence[Group]) -> list[list[Group]]:
    """Lists of comparable groups: those with the same training and evaluation images."""
    return list(_by(groups, _images).values())


def _by(groups: Sequence[Group], key: Any) -> dict[Any, list[Group]]:
    found: dict[Any, list[Group]] = {}
    for member in groups:
        found.setdefault(key(member), []).append(member)
    return found


def _images(member: Group) -> tuple[Any, ...]:
    """A key that is equal for groups with the same training and evaluation images."""
    kept = sorted((k, v) for k, v in member.settings.items() if changes_images(k))
    folds = sorted({run.settings.get("data.fold", "null") for run in member.runs})
    return (member.data, member.runs[0].reported, *folds, *kept)


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


def _chosen(settings: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """The values of some settings. Where others have one `_target_`, a list is shown as a whole."""
    found = {key: settings[key] for key in keys if key in settings}
    for key in keys:
        if key in settings or not key.endswith(f".{TARGET}"):
            continue
        member = re.compile(rf"{re.escape(key.removesuffix(TARGET))}[^.]+\.{TARGET}")
        members = {name: value for name, value in settings.items() if member.fullmatch(name)}
        if members:
            found = {name: value for name, value in found.items() if name not in members}
            found[key] = f"[{','.join(value.rpartition('.')[2] for value in members.values())}]"
    return dict(sorted(found.items()))


def differing(all_settings: Sequence[Mapping[str, str]]) -> list[str]:
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


def named(settings: Mapping[str, str]) -> dict[str, str]:
    """Shorten `optimizer._target_=torch.optim.Adam` to `optimizer=Adam`.

    A choice that was typed at a resume, `optimizer=adamw, then sgd`, comes before its class.
    """
    short = {
        key.removesuffix(f".{TARGET}"): value.rpartition(".")[2] if key.endswith(TARGET) else value
        for key, value in settings.items()
    }
    return short | {key: settings[key] for key in short.keys() & settings.keys()}
