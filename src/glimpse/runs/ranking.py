"""Which models are ahead on each dataset, and which differences exceed the noise.

The models are compared by the metric that all their runs monitored, measured on the test set, or
else on the validation set; by accuracy if the monitors differ. Each model is represented by its
best group of runs, chosen by the monitor. Whether two models differ is decided by Welch's t-test
over the seeds, with Holm's correction for the number of comparisons (Holm 1979, A simple
sequentially rejective multiple test procedure). Left out: the noise of the evaluation images, which
all models share; `glimpse compare` tests it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from glimpse.records import FINISHED
from glimpse.runs.groups import NOT_SPLITS, Group, Statistic, common_monitor, rivals

LEVEL = 0.05  # of the test
MORE, NOISE, UNKNOWN = ">", "≈", "?"
MEANINGS = {
    MORE: f"{MORE} is a difference beyond the noise of the seeds",
    NOISE: f"{NOISE} is a difference within the noise of the seeds",
}
TEST = f"(Welch's t-test, p < {LEVEL} after Holm's correction)"
NO_TEST = (
    f"{UNKNOWN} means that the noise is unknown: a model has a single run, only folds, or the same result for "
    "every seed."
)


@dataclass(frozen=True)
class Ranking:
    """The models on the same images of one dataset.

    Attributes:
        data: The name of the dataset, with the settings that tell it from others of this name.
        metric: The metric that measures them, such as test/acc.
        majority: The accuracy of the majority class, if it is recorded and the metric is accuracy.
        models: The metric of each model, the best first.
        signs: Whether each model differs from the next: `MORE`, `NOISE` or `UNKNOWN`.
    """

    data: str
    metric: str
    majority: float | None
    models: dict[str, Statistic]
    signs: list[str]

    def __str__(self) -> str:
        first, *others = self.models
        order = " ".join([first, *(f"{s} {m}" for s, m in zip(self.signs, others, strict=True))])
        return f"{self.data} ({self.metric}): {order}"


def rankings(groups: Sequence[Group]) -> list[Ranking]:
    """Rank the models of each dataset whose finished runs are known to have the same images."""
    found = []
    compared = rivals([g for g in groups if g.status == FINISHED and g.runs[0].settings])
    names = _told_apart([same_images[0] for same_images in compared])
    for name, same_images in zip(names, compared, strict=True):
        monitor = common_monitor(run for member in same_images for run in member.runs)
        split = same_images[0].runs[0].reported
        metric = f"{split}/{monitor.name.rpartition('/')[2]}"
        sign = monitor.sign
        if any(member.metric(metric) is None for member in same_images):
            metric, sign = f"{split}/acc", 1
        order = _best_first(monitor.name, monitor.sign)
        best: dict[str, Group] = {}
        for member in sorted(same_images, key=order):
            if member.metric(metric):
                best.setdefault(member.model, member)
        if len(best) > 1:
            ranked = sorted(best.values(), key=_best_first(metric, sign))
            found.append(_ranking(name, ranked, metric))
    return found


def _best_first(metric: str, sign: int) -> Callable[[Group], float]:
    """A sort key for groups by a metric, whose highest value is best if `sign` is 1."""

    def key(member: Group) -> float:
        found = member.metric(metric)
        return -sign * found.mean if found else inf

    return key


def told(found: Sequence[Ranking]) -> list[str]:
    """A sentence for each ranking, and those that explain the signs in them."""
    if not found:
        return []
    used = {sign for ranking in found for sign in ranking.signs}
    meanings = ", ".join(text for sign, text in MEANINGS.items() if sign in used)
    tested = [f"Between two models, {meanings} {TEST}."] if meanings else []
    return [*map(str, found), *tested, *([NO_TEST] if UNKNOWN in used else [])]


def _told_apart(members: Sequence[Group]) -> list[str]:
    """The names of the members' datasets, with the settings that differ among equal names."""
    values: dict[tuple[str, str], set[str | None]] = {}  # of each setting, by dataset
    keys = {key for member in members for key in member.settings if key.startswith("data.")}
    for member in members:
        for key in keys - NOT_SPLITS:
            values.setdefault((member.data, key), set()).add(member.settings.get(key))
    differing = sorted(place for place, found in values.items() if len(found) > 1)
    return [
        " ".join(
            [m.data, *(f"{key}={m.settings.get(key)}" for data, key in differing if data == m.data)]
        )
        for m in members
    ]


def _ranking(name: str, members: Sequence[Group], metric: str) -> Ranking:
    measured = {member: found for member in members if (found := member.metric(metric))}
    return Ranking(
        name,
        metric,
        members[0].number("majority_acc") if metric.endswith("/acc") else None,
        {member.model: found for member, found in measured.items()},
        _signs([found if _has_seeds(member) else None for member, found in measured.items()]),
    )


def _has_seeds(member: Group) -> bool:
    """Whether the runs differ in their seed alone. Folds share most of their training images."""
    folds = {run.settings.get("data.fold") for run in member.runs}
    return len(member.repeats) > 1 and len(folds) == 1


def _signs(ranked: Sequence[Statistic | None]) -> list[str]:
    p_values = [_p_value(one, other) for one, other in pairwise(ranked)]
    significant = iter(holm([p for p in p_values if p is not None]))
    return [UNKNOWN if p is None else MORE if next(significant) else NOISE for p in p_values]


def _p_value(one: Statistic | None, other: Statistic | None) -> float | None:
    if one is None or other is None or one.std is None or other.std is None:
        return None
    from glimpse.insight.significance import welch  # imports scipy

    return welch((one.mean, one.std, one.num), (other.mean, other.std, other.num))


def holm(p_values: Sequence[float]) -> list[bool]:
    """Whether each hypothesis is rejected. Any is falsely rejected with probability ≤ `LEVEL`."""
    rejected = [False] * len(p_values)
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] >= LEVEL / (len(p_values) - place):
            break
        rejected[number] = True
    return rejected
