"""How much each axis of a sweep decides whether a setting is among the best.

Source: PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), as Optuna implements it. It compares
the distribution of the best settings along an axis with the distribution of all settings. Settings
that were stopped early are excluded.

The values of an axis with few different numbers, such as batch sizes, are replaced by their ranks.
PED-ANOVA would otherwise spread each of them over a continuous axis, and find differences in the
gaps between them.
"""

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from glimpse.runs.sweep import Axis, Setting, Sweep

FEWEST = 10  # finished settings; with fewer, the shares would be meaningless
NUM_BEST = 5  # at least this many settings count as the best
SHARE_OF_BEST = 0.1  # and at least this share of them


def importance(sweep: Sweep) -> dict[str, float] | None:
    """The share of each axis, the most important first; their sum is 1.

    Returns:
        None if `why_not` has a reason, or there is only one axis.
    """
    if len(sweep.axes) < 2 or why_not(sweep):
        return None
    finished = _complete(sweep)
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    distributions: dict[str, BaseDistribution] = {}
    places: dict[str, Mapping[str, str | float]] = {}  # of the values of each axis
    for axis in sweep.axes:
        if not axis.is_number:
            words = list(axis.places)
            distributions[axis.key] = CategoricalDistribution(words)
            places[axis.key] = dict(zip(words, words, strict=True))
        elif ranks := _ranks(axis, [s.values[axis.key] for s in finished]):
            distributions[axis.key] = IntDistribution(0, max(ranks.values()))
            places[axis.key] = ranks
        else:
            low, high = min(axis.places.values()), max(axis.places.values())
            distributions[axis.key] = FloatDistribution(low, high, log=axis.is_log)
            places[axis.key] = axis.places
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if sweep.mode == "min" else "maximize")
    for setting in finished:
        params = {key: of_axis[setting.values[key]] for key, of_axis in places.items()}
        study.add_trial(
            optuna.create_trial(value=setting.score, params=params, distributions=distributions)
        )
    quantile = min(0.5, max(SHARE_OF_BEST, NUM_BEST / len(finished)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about axes on which all of the best settings are equal
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def why_not(sweep: Sweep) -> str:
    """Why the importance of its axes cannot be computed, as a sentence; empty if it can."""
    finished = _complete(sweep)
    if sweep.num_datasets > 1:
        return "Importance is not shown, because scores on different datasets, or by different losses, cannot be compared."
    if len(finished) < FEWEST:
        with_all = " with a value on each axis" if len(sweep.finished) >= FEWEST else ""
        return f"Importance is shown once {FEWEST} settings{with_all} have finished."
    if len({setting.score for setting in finished}) == 1:
        return "Importance is not shown, because all scores are equal."
    if find_spec("optuna") is None:
        return "Importance needs Optuna: type pip install 'glimpse[search]'."
    return ""


def _complete(sweep: Sweep) -> list[Setting]:
    """The finished settings with a value on each axis."""
    return [s for s in sweep.finished if all(axis.key in s.values for axis in sweep.axes)]


def _ranks(axis: Axis, values: Sequence[str]) -> dict[str, int] | None:
    """The rank of each number among the different ones, from 0; None if most of them differ."""
    places = sorted({axis.places[value] for value in values})
    if len(places) > len(values) / 2:
        return None
    return {value: places.index(axis.places[value]) for value in values}
