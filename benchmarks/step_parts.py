"""Where the time of a small network's step goes, in `train.py` and in a bare loop; `make bench`.

Forward, backward and the optimizer's update are the same calls of torch in both; the rest of a step is
fetching the batch, and in `train.py` Lightning, counting and callbacks. A third loop is the bare one that
counts time for half a millisecond before each of these calls: what they take longer there, they lose to
caches and branch predictors gone cold. Prints medians over the steps of interleaved epochs, in milliseconds.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from loops import bare, ours
from rich.console import Console
from rich.table import Table
from tasks import TASKS, compose_task, composing

from glimpse.assembly import build_data
from glimpse.models.linear import Linear
from glimpse.models.mlp import MLP
from glimpse.models.small_convnet import SmallConvNet

GAP = 0.0005  # seconds
PARTS: dict[str, list[tuple[Any, str]]] = {
    "forward": [(network, "forward") for network in (Linear, MLP, SmallConvNet)],
    "backward": [(torch.Tensor, "backward")],
    "update": [(sys.modules["torch.optim.adam"], "adam")],  # once for each of two groups
}

Step = dict[str, float]  # seconds of each part, of the gaps, and of the whole


@contextmanager
def timed_parts(gap: float) -> Iterator[list[Step]]:
    """Inside, steps are timed from forward to forward, and `gap` seconds pass before each part."""
    steps: list[Step] = []
    step_began = time.perf_counter()

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal step_began
            entered = began = time.perf_counter()
            if part == "forward":
                if steps:
                    steps[-1]["step"] = entered - step_began
                steps.append(dict.fromkeys((*PARTS, "gap", "step"), 0.0))
                step_began = entered
            while began < entered + gap:
                began = time.perf_counter()
            result = function(*arguments, **named)
            steps[-1]["gap"] += began - entered
            steps[-1][part] += time.perf_counter() - began
            return result

        return call

    with ExitStack() as patches:
        for part, functions in PARTS.items():
            for owner, name in functions:
                replacement = timed(part, getattr(owner, name))
                patches.enter_context(patch.object(owner, name, replacement))
        yield steps
    del steps[-1]  # nothing followed it


def row(steps: list[Step]) -> list[str]:
    """Medians of the parts, the rest and the whole without the gaps, in milliseconds."""
    without_gaps = [step["step"] - step["gap"] for step in steps]
    rests = [
        whole - sum(step[part] for part in PARTS)
        for whole, step in zip(without_gaps, steps, strict=True)
    ]
    columns = [*([step[part] for step in steps] for part in PARTS), rests, without_gaps]
    return [f"{1000 * median(column):.2f}" for column in columns]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each")
    repeats = parser.parse_args().repeats
    table = Table("task", "loop", *PARTS, "rest", "step")
    with composing() as folder:
        for task in TASKS:
            if not task.name.startswith("fashion_mnist"):
                continue
            config = compose_task(task, folder)
            bare_loop = bare(config, build_data(config))
            loops = {
                "train.py": (ours(config, folder), 0.0),
                "bare": (bare_loop, 0.0),
                "bare, time between": (bare_loop, GAP),
            }
            steps: dict[str, list[Step]] = {loop: [] for loop in loops}
            for _ in range(repeats):
                for loop, (epoch, gap) in loops.items():
                    with timed_parts(gap) as new:
                        epoch()
                    steps[loop] += new
            for loop in loops:
                table.add_row(task.name, loop, *row(steps[loop]))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
