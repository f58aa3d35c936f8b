"""How torch's threads wait is decided before torch is imported, unless the user has decided."""

import os
import subprocess
import sys

import pytest
import torch

from glimpse.threads import cores_of_each, threads_restored, use_one_thread_if_small

CODE = (
    "import os, sys; from glimpse import launch; sys.argv[1:] = ['--cfg', 'job']; launch.main(); "
    "print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "100000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(
    given: dict[str, str], expected: str
) -> None:
    unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    variables = {name: v for name, v in os.environ.items() if name not in unset} | given
    result = subprocess.run(
        [sys.executable, "-c", CODE], env=variables, capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[-2:] == ["False", expected]


@pytest.mark.parametrize(
    ("pixels", "parameters", "threads"),
    [(32 * 64, 166_234, 1), (128 * 784, 7_850, 2), (32 * 64, 30_000_000, 2)],
)
def test_one_thread_does_small_work(
    pixels: int, parameters: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with threads_restored():
        torch.set_num_threads(2)
        assert use_one_thread_if_small(pixels, parameters) is (threads == 1)
        assert torch.get_num_threads() == threads
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        torch.set_num_threads(2)
        assert not use_one_thread_if_small(pixels, parameters)
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("own", "on_node", "each"),
    [(16, None, 4), (16, "16", 4), (4, "16", 4), (2, "2", 1)],
)
def test_cores_are_divided_unless_srun_has_done_so(
    own: int, on_node: str | None, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(own)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    if on_node is not None:
        monkeypatch.setenv("SLURM_CPUS_ON_NODE", on_node)
    assert cores_of_each(4) == each
