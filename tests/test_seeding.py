"""Whatever generator a user's code draws from, a run repeats, and a stopped run goes on as if it had not been."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import Execute
from glimpse.models.mlp import MLP
from glimpse.seeding import restore, seed_all, state_of_generators
from test_resume import assert_same, check_stopped_equals_unbroken

CPU = torch.device("cpu")
SMALL = (
    "data=synthetic", "data.shape=[1,6,6]", "data.num_train=100", "data.num_val=40",
    "data.batch_size=16", "model=mlp", "model.widths=[8]", "trainer=cpu", "trainer.max_epochs=3",
    "logger=none", "test=false",
)  # fmt: skip


class Noisy(MLP):
    """It draws from numpy and Python where others draw from torch."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            noise = np.random.standard_normal(images.shape).astype(np.float32)
            images = images * random.uniform(0.8, 1.2) + 0.1 * torch.from_numpy(noise)
            images = images + 0.1 * random.gauss(0, 1) + 0.1 * float(np.random.randn())
        return super().forward(images)


@pytest.fixture(autouse=True)
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glimpse.models.mlp.MLP", Noisy)


def draws() -> list[Any]:
    """An odd number of normal ones: the generators of numpy and Python keep every second."""
    return [
        torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.randn(3).tolist(),
        random.random(), random.gauss(0, 1), random.sample(range(99), 5),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 7, -1])
def test_a_seed_fixes_what_all_three_draw(seed: int) -> None:
    seed_all(seed)
    first = draws()
    draws()
    seed_all(seed)
    assert draws() == first
    torch.manual_seed(seed)
    assert torch.rand(3).tolist() == first[0]  # as ever
    seed_all(seed + 1)
    assert all(one != other for one, other in zip(draws(), first, strict=True))


def test_their_state_is_kept_as_plain_data(tmp_path: Path) -> None:
    seed_all(3)
    draws()
    torch.save(state_of_generators(CPU), tmp_path / "state")
    expected = draws()
    seed_all(4)
    restore(torch.load(tmp_path / "state", weights_only=True), CPU)
    assert draws() == expected


@pytest.mark.parametrize("where", [("on_train_batch_end", 1, 2), ("on_train_batch_end", 1, 6)])
def test_stopped_and_resumed_equals_unbroken(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[str, int, int],
) -> None:
    check_stopped_equals_unbroken(execute, tmp_path, monkeypatch, SMALL, where)


def test_a_run_repeats_wherever_the_generators_stood(execute: Execute, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        execute(*SMALL, folder=folder)
        draws()
    assert_same(*folders)
