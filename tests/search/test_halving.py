"""Successive halving: which trial goes on, and when."""

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from glimpse.search.halving import UNTIL, next_rung, promotable, rungs, waits

LEVELS = (1, 3, 9)


def trial(number: int, *values: float, state: TrialState = TrialState.RUNNING) -> FrozenTrial:
    """A trial with these values at epochs 1, 2, 3, …"""
    made = create_trial(
        state=state,
        value=values[-1] if state == TrialState.COMPLETE else None,
        params={"lr": 0.5},
        distributions={"lr": FloatDistribution(0, 1)},
        intermediate_values=dict(enumerate(values, 1)),
    )
    made.number = number
    return made


@pytest.mark.parametrize(
    ("num_epochs", "levels"),
    [(9, (1, 3, 9)), (10, (1, 2, 4, 10)), (27, (1, 3, 9, 27)), (2, (1, 2)), (1, (1,))],
)
def test_rungs_end_with_a_whole_trial(num_epochs: int, levels: tuple[int, ...]) -> None:
    assert rungs(num_epochs) == levels


def test_a_trial_waits_on_a_rung_and_nowhere_else() -> None:
    assert [waits(trial(0, *[0.5] * n), LEVELS) for n in (0, 1, 2, 3, 9)] == [
        False, True, False, True, False,
    ]  # fmt: skip
    assert [next_rung(trial(0, *[0.5] * n), LEVELS) for n in (0, 1, 2, 3, 8)] == [1, 3, 3, 9, 9]
    assert not waits(trial(0, 0.5, state=TrialState.FAIL), LEVELS)


def test_a_trial_that_was_told_to_go_on_waits_no_more() -> None:
    told = trial(0, 0.5)
    told.set_user_attr(UNTIL, 3)
    assert not waits(told, LEVELS)
    told = trial(0, 0.5, 0.5, 0.5)
    told.set_user_attr(UNTIL, 3)
    assert waits(told, LEVELS)


def test_the_best_third_goes_on_and_the_highest_rung_first() -> None:
    trials = [trial(0, 0.1), trial(1, 0.9)]
    assert promotable(trials, LEVELS, "max") is None  # two have no third
    trials.append(trial(2, 0.2))
    assert promotable(trials, LEVELS, "max") is trials[1]
    assert promotable(trials, LEVELS, "min") is trials[0]
    trials[1] = trial(1, 0.9, 0.9)  # it has gone on
    assert promotable(trials, LEVELS, "max") is None
    higher = [trial(n, 0.9, 0.9, n / 10) for n in range(3, 6)]
    assert promotable([*trials, *higher], LEVELS, "max") is higher[-1]


def test_a_trial_that_goes_on_is_not_chosen_twice() -> None:
    """With several at once, a place is free before the trial has reported its next epoch."""
    trials = [trial(n, n / 10) for n in range(6)]
    assert promotable(trials, LEVELS, "max", busy={5}) is trials[4]
    assert promotable(trials, LEVELS, "max", busy={4, 5}) is None


def test_a_small_search_ends_with_a_whole_trial() -> None:
    trials = [trial(0, 0.1), trial(1, 0.9, 0.9, 0.3), trial(2, 0.2, 0.2, 0.4)]
    assert promotable(trials, LEVELS, "max", one_in=1) is trials[2]
    assert promotable([trial(0)], LEVELS, "max", one_in=1) is None
