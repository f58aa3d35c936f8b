"""How fast training is here, against bare loops over the same work; `make bench`.

For each task, interleaved, the best of several epochs of
  ours       `python train.py` as users run it: loader, augmentation, counting, callbacks; its
             second epoch, as the others' are not their first either (ours begins anew each time)
  bare       a plain PyTorch loop over tensors in memory: same network, with PyTorch's convolutions,
             same precision, layout, optimizer
  barebones  Lightning's `Trainer(barebones=True)` over the same in-memory batches
  tutorial   the loop that tutorials teach: torchvision's dataset, ToTensor, DataLoader, fp32
The others run in a process of their own, where torch imports its compiler for every optimizer, as it does in
any script; a run here does without. And, for the loader alone, batches of photos augmented at 224 px: cached
against decoded each time.
Prints images a second and the ratio of ours to each, and writes benchmarks/results.json. The images are
generated at each dataset's shape, so that all can be measured without a download; the tutorials' loop
reads them through torchvision's own classes (Tiny ImageNet's as JPEG files).
"""

import argparse
import json
import logging
import os
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from loops import Epoch, bare, barebones, ours, tutorial
from photo_loaders import loader_alone, photos, photos_of_tutorial
from rich.console import Console
from rich.table import Table
from tasks import TASKS, Task, compose_task, composing

from glimpse.assembly import build_data

LOADER = "pets 224 px, presize, loader alone"
NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each, best counts")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    arguments = parser.parse_args()
    results = {}
    with composing() as folder:
        for task in TASKS:
            if arguments.only in task.name:
                with closing(OtherLoops(task)) as others:
                    loops = {name: others.epoch(name) for name in ("bare", "barebones", "tutorial")}
                    config = compose_task(task, folder)
                    loops = {"ours": ours(config, folder / "run")} | loops
                    results[task.name] = measure(loops, arguments.repeats)
                print(f"{task.name}: {results[task.name]}", flush=True)
        if arguments.only in LOADER:
            photos(folder / "photos", 320)
            loaders = {
                "ours": loader_alone(folder, cache=True),
                "decoded each time": loader_alone(folder, cache=False),
                "tutorial": photos_of_tutorial(folder),
            }
            results[LOADER] = measure(loaders, arguments.repeats)
            print(f"{LOADER}: {results[LOADER]}", flush=True)
    show(results)
    (Path(__file__).parent / "results.json").write_text(json.dumps(results, indent=2) + "\n")


class OtherLoops:
    """The loops to compare with, in a process of their own that computes only while we wait for it."""

    def __init__(self, task: Task) -> None:
        ours, theirs = get_context("spawn").Pipe()
        self._connection: Connection[str, float] = ours
        self._process = get_context("spawn").Process(target=run_other_loops, args=(task, theirs))
        self._process.start()

    def epoch(self, name: str) -> Epoch:
        """One of them."""

        def one() -> float:
            self._connection.send(name)
            return self._connection.recv()

        return one

    def close(self) -> None:
        """End the process."""
        self._connection.send("")
        self._process.join()


def run_other_loops(task: Task, connection: "Connection[float, str]") -> None:
    """Run an epoch of the loop that is asked for, until nothing is asked for."""
    import torch._dynamo  # noqa: F401 - as torch does when an optimizer is built

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with composing() as folder:
        config = compose_task(task, folder)
        data = build_data(config)
        loops = {
            "bare": bare(config, data),
            "barebones": barebones(config, data),
            "tutorial": tutorial(config, data, task.name, folder),
        }
        while name := connection.recv():
            # Lightning's own setting for its own loop; nobody sets it for the others.
            os.environ[NVML_CHECK] = "1" if name == "barebones" else "0"
            connection.send(loops[name]())


def measure(epochs: dict[str, Epoch], repeats: int) -> dict[str, float]:
    """Best images a second of each contender, in turn."""
    best = dict.fromkeys(epochs, 0.0)
    for _ in range(repeats):
        for name, epoch in epochs.items():
            best[name] = max(best[name], round(epoch(), 1))
    return best


def show(results: dict[str, dict[str, float]]) -> None:
    """The table of ratios."""
    table = Table("task", "ours img/s", "of bare loop", "of barebones", "times the tutorials'")
    for name, speeds in results.items():
        ratios = [
            f"{speeds['ours'] / speeds[other]:.2f}" if other in speeds else "–"
            for other in ("bare", "barebones", "tutorial")
        ]
        table.add_row(name, f"{speeds['ours']:,.0f}", *ratios)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
