"""Successive halving: many trials begin, the best third of them goes on, and of those again the best third.

Source: ASHA (Li et al. 2020, arXiv:1810.05934), algorithm 2: whenever a place is free, a trial that is among
the best third of its rung goes on, or else a new one begins. A trial that waits keeps its checkpoint, and goes
on from there: its schedule is that of a whole training from the beginning. Optuna's own pruner of this name
stops trials for good, and cannot take one up again.
"""

from collections.abc import Collection, Sequence

from optuna.trial import FrozenTrial, TrialState

FACTOR = 3  # one trial in so many goes on


def rungs(num_epochs: int) -> tuple[int, ...]:
    """The numbers of epochs at which trials are compared, and at the end those of a whole trial."""
    found = [num_epochs]
    while found[0] > 1:
        found.insert(0, -(-found[0] // FACTOR))
    return tuple(found)


def next_rung(trial: FrozenTrial, levels: Sequence[int]) -> int:
    """The number of epochs to which a trial is trained when it goes on."""
    trained = trial.last_step or 0
    return next((level for level in levels if level > trained), levels[-1])


def waits(trial: FrozenTrial, levels: Sequence[int]) -> bool:
    """Whether a trial has reached a rung and waits there."""
    return trial.state == TrialState.RUNNING and (trial.last_step or 0) in levels[:-1]


def promotable(
    trials: Sequence[FrozenTrial], levels: Sequence[int], mode: str, busy: Collection[int] = ()
) -> FrozenTrial | None:
    """The waiting trial that should go on next: on the highest rung, the best of its best third.

    Args:
        trials: All trials.
        levels: The rungs.
        mode: "max" or "min": which values are better.
        busy: The numbers of trials that have been told to go on, and have not reported yet.
    """
    for level in reversed(levels[:-1]):
        ranked = _ranked(trials, level, mode)
        for trial in ranked[: len(ranked) // FACTOR]:
            if waits(trial, levels) and trial.last_step == level and trial.number not in busy:
                return trial
    return None


def best_waiting(
    trials: Sequence[FrozenTrial], levels: Sequence[int], mode: str, busy: Collection[int] = ()
) -> FrozenTrial | None:
    """The best trial of the highest rung on which any waits, for a search too small for thirds."""
    for level in reversed(levels[:-1]):
        for trial in _ranked(trials, level, mode):
            if waits(trial, levels) and trial.last_step == level and trial.number not in busy:
                return trial
    return None


def _ranked(trials: Sequence[FrozenTrial], level: int, mode: str) -> list[FrozenTrial]:
    """The trials that reached a rung, the best first."""
    reached = [trial for trial in trials if level in trial.intermediate_values]
    return sorted(reached, key=lambda t: t.intermediate_values[level], reverse=mode == "max")
