"""Seed, save and restore the global random generators of torch, NumPy and Python together.

Networks and augmentations draw from them: ours from torch, a user's own from any of the three.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Factors that make one seed of (seed, epoch, rank). Two of them are equal only from a million epochs
# or a thousand processes on. Both are primes, so that sums of their multiples seldom are.
OVER_A_MILLION = 1_000_003
OVER_A_THOUSAND = 1_009


def seed_all(seed: int) -> None:
    """Seed all three generators. torch is seeded on every device with the number itself."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # NumPy takes 32 bits


@contextmanager
def untouched_generators() -> Iterator[None]:
    """Leave the block with the states of the three generators as they were before it."""
    before = state_of_generators(torch.device("cpu"))
    try:
        yield
    finally:
        restore(before, torch.device("cpu"))


def state_of_generators(device: torch.device) -> dict[str, Any]:
    """Return the states of all generators as plain data that a checkpoint can hold.

    Args:
        device: The state of torch is saved for the CPU and for this device.
    """
    kind, words, *rest = np.random.get_state(legacy=True)
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "mps": torch.mps.get_rng_state() if device.type == "mps" else None,
        "numpy": [kind, torch.from_numpy(np.asarray(words, np.int64)), *rest],
        "python": random.getstate(),
    }


def restore(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore the states that `state_of_generators` returned."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    if device.type == "mps" and state["mps"] is not None:
        torch.mps.set_rng_state(state["mps"].cpu())
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
