"""Successive halving: many trials start, the best third continues, then the best third of these.

Source: ASHA (Li et al. 2020, arXiv:1810.05934), algorithm 2: whenever a worker is free, it
continues a trial that is among the best third of its rung, or else starts a new one. A trial that
waits keeps its checkpoint and resumes from it. Its schedule covers a complete training from the
start. Optuna's pruner of this name cannot resume a trial that it has stopped.
"""

from collections.abc import Collection, Sequence

from optuna.trial import FrozenTrial, TrialState

FACTOR = 3  # one in this many trials continues
UNTIL = "until"  # the attribute of a trial that names the rung to which it is trained


def rungs(num_epochs: int) -> tuple[int, ...]:
    """The numbers of epochs at which trials are compared; the last is that of a complete trial."""
    found = [num_epochs]
    while found[0] > 1:
        found.insert(0, -(-found[0] // FACTOR))
    return tuple(found)


def next_rung(trial: FrozenTrial, levels: Sequence[int]) -> int:
    """The number of epochs to which a trial is trained when it continues."""
    trained = trial.last_step or 0
    return next((level for level in levels if level > trained), levels[-1])


def waits(trial: FrozenTrial, levels: Sequence[int]) -> bool:
    """Whether a trial has reached a rung and waits there."""
    trained = trial.last_step or 0
    is_there = trained in levels[:-1] and trained >= trial.user_attrs.get(UNTIL, 0)
    return trial.state == TrialState.RUNNING and is_there


def promotable(
    trials: Sequence[FrozenTrial],
    levels: Sequence[int],
    mode: str,
    busy: Collection[int] = (),
    *,
    one_in: int = FACTOR,
) -> FrozenTrial | None:
    """The waiting trial that should continue next: on the highest rung, the best of its best third.

    Args:
        trials: All trials.
        levels: The rungs.
        mode: "max" or "min": which values are better.
        busy: The numbers of trials that were told to continue and have not reported yet.
        one_in: A trial must be in this part of its rung; 1 for a search with too few for thirds.
    """
    for level in reversed(levels[:-1]):
        ranked = _ranked(trials, level, mode)
        for trial in ranked[: len(ranked) // one_in]:
            if waits(trial, levels) and trial.last_step == level and trial.number not in busy:
                return trial
    return None


def _ranked(trials: Sequence[FrozenTrial], level: int, mode: str) -> list[FrozenTrial]:
    """The trials that reached a rung, the best first."""
    reached = [trial for trial in trials if level in trial.intermediate_values]
    return sorted(reached, key=lambda t: t.intermediate_values[level], reverse=mode == "max")
