"""The global random generators of torch, numpy and Python: seeded, kept and restored together.

What draws from them are networks and augmentations, ours from torch, a user's own from any of them.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed all three; torch, on every device, with the number itself."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # it takes 32 bits


def state_of_generators(device: torch.device) -> dict[str, Any]:
    """Where they are, torch on the CPU and on `device`, as plain data that a checkpoint can hold."""
    kind, words, *rest = np.random.get_state(legacy=True)
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "mps": torch.mps.get_rng_state() if device.type == "mps" else None,
        "numpy": [kind, torch.from_numpy(np.asarray(words, np.int64)), *rest],
        "python": random.getstate(),
    }


def restore(state: Mapping[str, Any], device: torch.device) -> None:
    """Go on drawing where `state_of_generators` looked; what an older checkpoint lacks stays as it is."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    if device.type == "mps" and state.get("mps") is not None:
        torch.mps.set_rng_state(state["mps"].cpu())
    if "numpy" in state:
        kind, words, *rest = state["numpy"]
        np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))
    if "python" in state:
        random.setstate(state["python"])
