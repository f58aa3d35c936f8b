"""How near a network's step comes to the processor's own arithmetic; a part of `make bench`.

Billions of floating-point operations a second of a training step on a batch in memory, with PyTorch's
convolutions and with ours, beside those of one product of square matrices in the same precision: what
no network of mere convolutions passes. Interleaved, the best of several. A second table says where the time
of a step goes: operators that convolve or multiply, and the others that take most.
"""

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from loops import Bench
from rich.console import Console
from rich.table import Table
from tasks import BATCH_SIZE, TASKS, Task, compose_task, composing
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from glimpse.assembly import build_data

SIDE = 4096  # of the square matrices
CONVNETS = tuple(task for task in TASKS if task.name.endswith(" convnet"))
WHITENED = Task("cifar10 whitened_net", (3, 32, 32), 10, 4_000, ("model=whitened_net",))
MULTIPLIES = re.compile("conv|mm|addmv|linear")  # in the name of an operator
LEAST_SHARE = 0.02  # of a step's time, for an operator to be named


def shares(work: Callable[[], object]) -> str:
    """The shares of a step's time, by operator."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    seconds = Counter[str]()
    for event in found.key_averages():
        name = "convolutions and products" if MULTIPLIES.search(event.key) else event.key
        seconds[name.removeprefix("aten::")] += event.self_cpu_time_total
    whole = seconds.total()
    return ", ".join(
        f"{name} {taken / whole:.0%}"
        for name, taken in seconds.most_common()
        if taken >= LEAST_SHARE * whole
    )


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes, on a GPU until it has finished there."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def row(task: Task, folder: Path, repeats: int) -> tuple[list[str], str]:
    """A task's line of the table, and where the time of its step goes."""
    config = compose_task(task, folder)
    data = build_data(config)
    theirs = Bench(config, data, "auto")
    ours = Bench(config, data, "auto", our_convolutions=True)
    device, chosen = theirs.device, theirs.precision
    images = torch.randn(BATCH_SIZE, *task.shape, device=device)
    images = images.to(memory_format=chosen.memory_format)
    labels = torch.randint(task.num_classes, (BATCH_SIZE,), device=device)
    dtype = torch.bfloat16 if "bf16" in chosen.name else torch.float32
    square = torch.randn(SIDE, SIDE, device=device, dtype=dtype)
    with FlopCounterMode(display=False) as counter:
        theirs.step(images, labels)
    of_a_step = float(counter.get_total_flops())
    contenders = [
        (lambda: theirs.step(images, labels), of_a_step),
        (lambda: ours.step(images, labels), of_a_step),
        (lambda: square @ square, 2.0 * SIDE**3),
    ]
    best = [0.0] * len(contenders)
    for _ in range(repeats):
        for i, (work, operations) in enumerate(contenders):
            best[i] = max(best[i], operations / seconds(work))
    an_image = of_a_step / BATCH_SIZE
    cells = [
        f"{task.name} {chosen.name}",
        f"{an_image / 1e9:.2f}",
        *(f"{speed / 1e9:,.0f}" for speed in best),
        f"{max(best[:2]) / best[-1]:.0%}",
        f"{best[-1] / an_image:,.0f}",
    ]
    return cells, shares(lambda: ours.step(images, labels))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=6, help="steps of each, best counts")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    given = parser.parse_args()
    table = Table(
        "GFLOP/s",
        "GFLOP an image",
        "PyTorch's",
        "ours",
        "matrix product",
        "reached",
        "limit, images/s",
    )
    times = Table("where the time of a step goes", "share")
    with composing() as folder:
        for task in (*CONVNETS, WHITENED):
            if given.only in task.name:
                cells, shared = row(task, folder, given.repeats)
                table.add_row(*cells)
                times.add_row(task.name, shared)
    Console(width=120).print(table, times)


if __name__ == "__main__":
    main()
