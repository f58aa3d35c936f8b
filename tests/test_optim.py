"""Optimizers and schedules: weight decay where it belongs, rates sized from the run."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from conftest import choices, composed
from glimpse import optim
from glimpse.config import build


@pytest.mark.parametrize("name", choices("optimizer"))
def test_weight_decay_is_kept_off_biases_and_norms(name: str) -> None:
    config, _ = composed(
        f"optimizer={name}", "optimizer.decay_all=false", "optimizer.weight_decay=0.1"
    )
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    decayed, plain = optim.build_optimizer(network, config.optimizer).param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert len(plain["params"]) == 3


def rates(name: str, *overrides: str, total_steps: int = 100, epochs: int = 10) -> list[float]:
    config, _ = composed(f"scheduler={name}", *overrides)
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    steps_per_epoch = total_steps // epochs
    schedule = build("scheduler", config.scheduler, optimizer, total_steps=total_steps)
    values = []
    for step in range(total_steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule.interval == "step" or (
            schedule.interval == "epoch" and (step + 1) % steps_per_epoch == 0
        ):
            schedule.scheduler.step()
    return values


def test_constant() -> None:
    assert set(rates("constant")) == {0.1}


def test_cosine_warms_up_and_ends_at_its_final_factor() -> None:
    values = rates("cosine", "scheduler.warmup_fraction=0.1", "scheduler.final_factor=0.01")
    assert values[0] < values[5] < values[10] == pytest.approx(0.1)
    assert values == [*values[:10], *sorted(values[10:], reverse=True)]
    assert values[-1] == pytest.approx(0.001, rel=0.1)


def test_onecycle_rises_to_the_rate_and_falls() -> None:
    values = rates("onecycle", "scheduler.warmup_fraction=0.25")
    assert values[0] == pytest.approx(0.004)
    assert max(values) == values[25] == pytest.approx(0.1)
    assert values[-1] < 0.001


def test_step_falls_every_so_many_epochs() -> None:
    values = rates("step", "scheduler.every=4", "scheduler.factor=0.5")
    assert values[39] == 0.1
    assert values[40] == pytest.approx(0.05)
    assert values[99] == pytest.approx(0.025)


@pytest.mark.parametrize("total_steps", [1, 2, 3])
@pytest.mark.parametrize("name", choices("scheduler"))
def test_a_run_of_a_few_steps_has_positive_rates(name: str, total_steps: int) -> None:
    assert all(0 < value <= 0.1 for value in rates(name, total_steps=total_steps, epochs=1))
