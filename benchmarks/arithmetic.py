"""How near a convnet's step comes to the processor's own arithmetic; a part of `make bench`.

Billions of floating-point operations a second of a training step on a batch in memory, with PyTorch's
convolutions and with ours, beside those of one product of square matrices in the same precision: what
no network of mere convolutions passes. Interleaved, the best of several.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from throughput import BATCH_SIZE, TASKS, Bench, Task, compose_task, composing
from torch.utils.flop_counter import FlopCounterMode

from glimpse.assembly import build_data

SIDE = 4096  # of the square matrices


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes, on a GPU until it has finished there."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def row(task: Task, folder: Path, repeats: int) -> list[str]:
    """A task's line of the table."""
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
    return [
        f"{task.name} {chosen.name}",
        f"{an_image / 1e9:.2f}",
        *(f"{speed / 1e9:,.0f}" for speed in best),
        f"{best[-1] / an_image:,.0f}",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=6, help="steps of each, best counts")
    repeats = parser.parse_args().repeats
    table = Table(
        "GFLOP/s", "GFLOP an image", "PyTorch's", "ours", "matrix product", "its images/s"
    )
    with composing() as folder:
        for task in TASKS:
            if task.name.endswith(" convnet"):
                table.add_row(*row(task, folder, repeats))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
