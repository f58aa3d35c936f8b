"""Numbers that depend on seed, epoch and image, and on nothing else."""

import pytest
import torch

from glimpse.data.augment.base import Draws
from noise import draws_of


def test_draws_do_not_depend_on_the_batch() -> None:
    indices = torch.tensor([7, 3, 900, 3])
    together = Draws(indices, seed=1, epoch=2).uniform(3)
    assert together.shape == (3, 4)
    for column, index in enumerate(indices):
        alone = Draws(index[None], seed=1, epoch=2).uniform(3)
        assert torch.equal(alone[:, 0], together[:, column])


def test_draws_are_these() -> None:
    """A run of an earlier version is repeated by this one."""
    expected = [[11639934, 2935275], [3346706, 10896102], [4440775, 13194929]]
    draws = Draws(torch.tensor([0, 99_999]), seed=3, epoch=7)
    assert (draws.uniform(3) * 2**24).int().tolist() == expected


def test_draws_differ_by_seed_epoch_index_and_call() -> None:
    keys = [(seed, epoch) for seed in range(4) for epoch in range(4)]
    every = [draws_of(50, seed=seed, epoch=epoch) for seed, epoch in keys]
    columns = [draw(2) for draws in every for draw in (draws.uniform, draws.uniform)]
    columns += [draws.fixed(2) for draws in every[::4]]  # of each seed
    assert len(torch.cat(columns, 1).unique(dim=1).T) == (2 * 16 + 4) * 50


def test_fixed_draws_stay_over_epochs() -> None:
    assert torch.equal(draws_of(epoch=0).fixed(2), draws_of(epoch=5).fixed(2))
    assert not torch.equal(draws_of(seed=0).fixed(2), draws_of(seed=1).fixed(2))


def test_draws_are_uniform() -> None:
    draws = draws_of(20_000, seed=4, epoch=1).uniform(3)
    assert draws.dtype == torch.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws:
        counts = torch.histc(column, 20, 0, 1)
        # chi-squared of 19 degrees of freedom exceeds 43.8 once in a thousand draws
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8


def test_draws_are_uncorrelated() -> None:
    """Over columns, neighbouring images, successive calls and successive epochs."""
    draws = draws_of(20_000, seed=4, epoch=1)
    here, again = draws.uniform(3), draws.uniform(3)
    later = draws_of(20_000, seed=4, epoch=2).uniform(3)
    rows = torch.cat([here[:, :-1], here[:, 1:], again[:, :-1], later[:, :-1]])
    correlations = torch.corrcoef(rows) - torch.eye(12)
    assert correlations.abs().max() < 0.03  # four standard errors


@pytest.mark.gpu
def test_draws_are_the_same_on_a_gpu() -> None:
    there = Draws(torch.arange(1000).cuda(), seed=4, epoch=1).uniform(3)
    assert torch.equal(there.cpu(), draws_of(1000, seed=4, epoch=1).uniform(3))
