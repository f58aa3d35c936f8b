"""Which models are ahead on each dataset, and which differences exceed the noise.

Each model is represented by its best group of runs, chosen by the monitor. Whether two models differ
is decided by Welch's t-test over the seeds, with Holm's correction for the number of comparisons (Holm
1979, A simple sequentially rejective multiple test procedure). Left out: the noise of the evaluation
images, which all models share; `glimpse compare` tests it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from glimpse.runs.folder import FINISHED
from glimpse.runs.groups import Group, Statistic, rivals

LEVEL = 0.05  # of the test
MORE, NOISE, UNKNOWN = ">", "≈", "?"
MEANINGS = {
    MORE: f"{MORE} is a difference beyond the noise of the seeds",
    NOISE: f"{NOISE} is a difference within the noise of the seeds",
    UNKNOWN: f"{UNKNOWN} means that one run cannot tell",
}
TEST = f"Welch's t-test, p < {LEVEL} after Holm's correction"


@dataclass(frozen=True)
class Ranking:
    """The models on the same images of one dataset.

    Attributes:
        data: The name of the dataset.
        split: The split that measures them: test, or else val.
        majority: The accuracy of the majority class, if it is recorded.
        models: The accuracy of each model, the highest first.
        signs: Whether each model differs from the next: `MORE`, `NOISE` or `UNKNOWN`.
    """

    data: str
    split: str
    majority: float | None
    models: dict[str, Statistic]
    signs: list[str]

    def __str__(self) -> str:
        first, *others = self.models
        order = " ".join([first, *(f"{s} {m}" for s, m in zip(self.signs, others, strict=True))])
        return f"{self.data} ({self.split}/acc): {order}"


def rankings(groups: Sequence[Group]) -> list[Ranking]:
    """Rank the models of each dataset whose finished runs have the same images."""
    found = []
    for same_images in rivals([g for g in groups if g.status == FINISHED]):
        best: dict[str, Group] = {}
        for member in sorted(same_images, key=lambda g: -g.rank):
            if member.accuracy is not None:
                best.setdefault(member.model, member)
        if len(best) > 1:
            found.append(_ranking(list(best.values())))
    return found


def told(found: Sequence[Ranking]) -> list[str]:
    """A sentence for each ranking, and one that explains the signs in them."""
    if not found:
        return []
    used = {sign for ranking in found for sign in ranking.signs}
    meanings = ", ".join(text for sign, text in MEANINGS.items() if sign in used)
    test = f" ({TEST})" if used - {UNKNOWN} else ""
    return [*map(str, found), f"Between two models, {meanings}{test}."]


def _ranking(members: Sequence[Group]) -> Ranking:
    split = members[0].runs[0].reported
    measured = {m: found for m in members if (found := m.metric(f"{split}/acc"))}
    ranked = sorted(measured, key=lambda member: -measured[member].mean)
    return Ranking(
        members[0].data,
        split,
        members[0].number("majority_acc"),
        {member.model: measured[member] for member in ranked},
        _signs([measured[member] if _has_seeds(member) else None for member in ranked]),
    )


def _has_seeds(member: Group) -> bool:
    """Whether the runs differ in their seed alone. Folds share most of their training images."""
    folds = {run.settings.get("data.fold") for run in member.runs}
    return len(member.runs) > 1 and len(folds) == 1


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
    """Whether each hypothesis is rejected; any is rejected wrongly with probability at most `LEVEL`."""
    rejected = [False] * len(p_values)
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] >= LEVEL / (len(p_values) - place):
            break
        rejected[number] = True
    return rejected
