"""From trials to jobs and back, without training: seeds, repeats, failures and other processes."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from glimpse.search.space import Choice, Space
from glimpse.search.study import Study
from glimpse.search.trials import Trials
from glimpse.sweeps.jobs import Job
from glimpse.sweeps.runner import Outcome
from glimpse.sweeps.state import Found, State

SPACE: Space = {"optimizer.lr": Choice(("0.1",))}  # every trial repeats the first


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "study.db", SPACE, mode="max", seed=0, same={})


def trials_of(study: Study, *, num_seeds: int = 1, is_watched: bool = False) -> Trials:
    shared = ["model=mlp", "seed=5"]
    seeds = range(5, 5 + num_seeds)
    return Trials(study, SPACE, shared, Path(), seeds=seeds, is_watched=is_watched)


def asked(study: Study) -> FrozenTrial:
    trial = study.ask(100)
    assert trial is not None
    return trial


def ended(job: Job, state: State, metric: float | None = None) -> Outcome:
    summary: Mapping[str, object] = {"metrics": {"val/acc": metric}} if metric is not None else {}
    return Outcome(job, Path(job.name), Found(state, "why", summary))


def last(study: Study) -> tuple[TrialState, float | None]:
    trial = study.trials()[-1]
    return trial.state, trial.value


def test_the_jobs_of_a_trial_are_named_by_what_it_tries(study: Study) -> None:
    [job] = trials_of(study, is_watched=True).begin(asked(study))
    assert job.overrides == ("model=mlp", "seed=5", "optimizer.lr=0.1", "hydra.sweeper.trial=0")
    assert job.varying == ("optimizer.lr=0.1",)
    assert job.name == "optimizer.lr-0.1"


def test_the_score_is_the_mean_over_the_seeds(study: Study) -> None:
    trials = trials_of(study, num_seeds=3, is_watched=True)
    [first] = trials.begin(asked(study))
    assert first.overrides[-3:] == ("optimizer.lr=0.1", "seed=5", "hydra.sweeper.trial=0")
    second, third = trials.end(ended(first, State.FINISHED, 0.5))
    assert second.overrides == ("model=mlp", "optimizer.lr=0.1", "seed=6")
    assert trials.end(ended(third, State.FINISHED, 0.9)) == []
    assert last(study) == (TrialState.RUNNING, None)
    assert trials.end(ended(second, State.FINISHED, 0.4)) == []
    assert last(study) == (TrialState.COMPLETE, pytest.approx(0.6))


@pytest.mark.parametrize(
    ("state", "metric", "recorded"),
    [
        (State.FAILED, None, TrialState.FAIL),
        (State.REFUSED, None, TrialState.FAIL),
        (State.PRUNED, 0.3, TrialState.PRUNED),
        (State.FINISHED, None, TrialState.FAIL),  # without a validation there is no score
        (State.INTERRUPTED, 0.3, TrialState.RUNNING),
        (State.RUNNING, None, TrialState.RUNNING),
    ],
)
def test_a_first_seed_that_does_not_finish_spares_the_others(
    study: Study, state: State, metric: float | None, recorded: TrialState
) -> None:
    trials = trials_of(study, num_seeds=3)
    [first] = trials.begin(asked(study))
    assert trials.end(ended(first, state, metric)) == []
    assert last(study)[0] == recorded


def test_a_repeated_trial_takes_the_recorded_result(study: Study) -> None:
    trials = trials_of(study)
    [job] = trials.begin(asked(study))
    assert trials.begin(asked(study)) == []  # while the first one runs
    trials.end(ended(job, State.FINISHED, 0.7))
    assert trials.begin(asked(study)) == []  # and after it
    assert [trial.value for trial in study.trials()] == [0.7, 0.7, 0.7]


def test_a_trial_of_another_process_is_taken_up_when_that_has_ended(study: Study) -> None:
    trials, trial = trials_of(study), asked(study)
    [job] = trials.begin(trial)
    trials.end(ended(job, State.RUNNING))
    assert not trials.is_ours(trial)
    assert [again.name for again in trials.begin(trial)] == [job.name]
    trials.end(ended(job, State.FINISHED, 0.7))
    assert last(study) == (TrialState.COMPLETE, 0.7)


def test_a_trial_that_died_here_waits_for_the_next_command(study: Study) -> None:
    trials, trial = trials_of(study), asked(study)
    [job] = trials.begin(trial)
    trials.end(ended(job, State.INTERRUPTED))
    assert trials.is_ours(trial)


def test_the_command_of_a_trial_has_all_of_its_seeds(study: Study) -> None:
    trial = asked(study)
    assert trials_of(study).command(trial) == ["model=mlp", "seed=5", "optimizer.lr=0.1"]
    words = trials_of(study, num_seeds=3).command(trial)
    assert words == ["-m", "model=mlp", "optimizer.lr=0.1", "seed=5,6,7"]
