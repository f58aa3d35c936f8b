"""The metric that a run is judged by: `monitor` and `mode` of the configuration.

It chooses the best checkpoint, and it is what a run returns to a sweeper. Without `monitor`,
val/acc chooses, and early stopping and the plateau schedule watch val/loss. Nothing heavy is
imported.
"""

import difflib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

DEFAULT = "val/acc"
TIES = "val/loss"  # lower is better
# Words in the name of a metric for which lower is better.
LOWER_IS_BETTER = (
    "loss", "error", "calibration", "brier", "distance", "hinge", "entropy", "perplexity",
)  # fmt: skip
# Metrics that every run logs; val/top5 only where there are more than five classes.
MAY_BE_LOGGED = ("val/loss", "val/acc", "val/top5", "train/loss", "train/acc")
# Metrics of every run; the others come from `metrics=[…]`.
USUAL = ("loss", "acc", "top5")
ALSO_CALLED = {"accuracy": "acc", "top1": "acc", "top_1": "acc", "top_5": "top5"}
# The values of `tta`. The names of its metrics end in them, such as val/acc_flip.
VIEWS = ("flip", "flip_shift")


@dataclass(frozen=True)
class Monitor:
    """A metric by its logged name; its lowest ("min") or highest ("max") value is best."""

    name: str
    mode: str

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, float] | None:
        """A sort key for an epoch's metrics, higher is better; None if the metric is undefined.

        Ties go to the lower val/loss.
        """
        found = metrics.get(self.name)
        if found is None:
            return None
        return self.sign * found, -metrics.get(TIES, inf)

    @property
    def sign(self) -> int:
        """1 if the highest value is best, otherwise -1."""
        return -1 if self.mode == "min" else 1

    @property
    def of_training(self) -> bool:
        """Whether the metric is known only at the end of an epoch's training."""
        return self.name.startswith("train/")


def monitor_of(config: Mapping[str, Any]) -> Monitor:
    """The monitor of a configuration, as in `python train.py monitor=val/f1`."""
    name = str(config.get("monitor") or DEFAULT)
    return Monitor(name, config.get("mode") or inferred_mode(name))


def reported_split(metrics: Container[str]) -> str:
    """The held-out split that measures a run: "test" if it was measured, otherwise "val"."""
    return "test" if "test/acc" in metrics else "val"


def inferred_mode(name: str) -> str:
    """ "min" for losses, errors and calibration, otherwise "max"."""
    return "min" if any(word in name.lower() for word in LOWER_IS_BETTER) else "max"


def what_is_wrong(key: str, name: str, logged: Sequence[str], choices: Sequence[str]) -> str | None:
    """An error message if a metric cannot be monitored; None if it can.

    Args:
        key: The key that names it, such as `monitor`.
        name: The name.
        logged: The names that the run logs.
        choices: The metrics that `metrics=[…]` could add.
    """
    if name in logged:
        return None
    split, _, metric = name.rpartition("/")
    own = metric.removeprefix("val_")
    if own not in choices:
        own = ALSO_CALLED.get(own.lower(), own.lower())
    if split.lower() == "test":
        return f"{key}={name}: the test set must not influence training; type {key}=val/{own}"
    if own in choices and f"val/{own}" not in logged:
        return f"{key}={name}: the run does not measure it; type metrics=[{own}] {key}=val/{own}"
    found = f"{key}={name} is not a metric of this run"
    near = _nearest(split, own, name, logged, choices)
    if near is None:
        return f"{found}: expected one of {', '.join(logged)}"
    if near in logged:
        return f"{found}: did you mean {near}?"
    return f"{found}: did you mean metrics=[{near.removeprefix('val/')}] {key}={near}?"


def _nearest(
    split: str, own: str, name: str, logged: Sequence[str], choices: Sequence[str]
) -> str | None:
    """The most similar metric that a run logs or could log: first of the same name or beginning."""
    by_metric = {one.rpartition("/")[2]: one for one in reversed(logged)}
    same = [one for one in logged if one.rpartition("/")[2] == own]
    begun = [one for one in logged if len(own) > 2 and one.rpartition("/")[2].startswith(own)]
    if alike := same or begun:
        return min(alike, key=lambda one: not one.startswith(f"{split.lower()}/"))
    every = [*logged, *(f"val/{one}" for one in choices if f"val/{one}" not in logged)]
    # val/auc is nearer to val/auroc than to val/acc.
    near = difflib.get_close_matches(name, every, n=1)
    near += [by_metric[one] for one in difflib.get_close_matches(own, by_metric, n=1)]
    near += [f"val/{one}" for one in difflib.get_close_matches(own, choices, n=1)]
    return near[0] if near else None


def more_metrics(names: Iterable[str]) -> list[str]:
    """The names of the logged metrics that `metrics=[…]` adds, such as val/f1 and test/f1."""
    of_views = tuple(f"_{views}" for views in VIEWS)
    pairs = {(kind, split) for name in names for split, _, kind in [name.partition("/")]}
    return [
        f"{split}/{kind}"
        for kind, split in sorted(pairs, key=lambda pair: (pair[0], pair[1] == "test"))
        if split in ("val", "test") and kind not in USUAL and not kind.endswith(of_views)
    ]
