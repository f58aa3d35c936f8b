"""What a GPU does with all this, in at most eight minutes; `make bench-gpu`.

Four parts, each with a limit of its own, so that none keeps the others from being reported:
  tests    `pytest -m gpu`, with its slowest ten
  training images a second of a run's second epoch, with and without compile=true, beside a bare loop over
           tensors on the GPU, as it is and compiled: best of several, interleaved; and the memory it took
  recipes  `experiment=fashion_mnist_fast` and `cifar10_fast` to their accuracy, where --data-dir has the files
Writes benchmarks/gpu.json and benchmarks/gpu.md, with the names of the GPU and of the versions. Without a GPU
it stops at once, unless --device=cpu tries the program itself.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from throughput import (
    BATCH_SIZE,
    TASKS,
    Bench,
    Epoch,
    compose_task,
    composing,
    in_memory,
    measure,
    ours,
)
from torch import Tensor

from glimpse.assembly import build_data
from glimpse.data.module import ImageDataModule

HERE = Path(__file__).parent
NUM_IMAGES = {"linear": 60_000, "mlp": 60_000, "small_convnet": 60_000, "convnet": 20_000}
LIMITS = {"tests": 200, "recipes": 120}  # seconds, of all tests and of each recipe
RECIPES = ("fashion_mnist_fast", "cifar10_fast")


def bare(config: DictConfig, data: ImageDataModule, *, compiled: bool) -> Epoch:
    """A loop over bytes that lie on the GPU, with its own order and nothing counted."""
    bench = Bench(config, data, "auto", our_convolutions=True)
    if compiled:
        bench.network.compile()
    images, labels = (tensor.to(bench.device) for tensor in in_memory(data))
    images = images.contiguous(memory_format=bench.precision.memory_format)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(images), device=bench.device)
        for chosen in torch.split(order, BATCH_SIZE):
            yield images[chosen].float() / 255, labels[chosen]

    return lambda: bench.timed(batches())


def training(repeats: int, device: str, only: str) -> dict[str, dict[str, float]]:
    """Images a second of each contender for each task, and gigabytes of the GPU's memory."""
    found = {}
    for task in TASKS:
        if only not in task.name:
            continue
        with composing() as folder:
            config = compose_task(task, folder)
            config.trainer.accelerator = "gpu" if device == "cuda" else device
            if device == "cuda":
                config.data.num_train = NUM_IMAGES[task.name.split()[-1]]
                torch.cuda.reset_peak_memory_stats()
            compiled = config.copy()
            compiled.compile = True
            data = build_data(config)
            speeds = measure(
                {
                    "ours": ours(config, folder / "run"),
                    "ours, compiled": ours(compiled, folder / "compiled"),
                    "bare": bare(config, data, compiled=False),
                    "bare, compiled": bare(config, data, compiled=True),
                },
                repeats,
            )
            if device == "cuda":
                speeds["GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            found[task.name] = speeds
            print(f"{task.name}: {speeds}", flush=True)
    return found


def finished(words: list[str], limit: int) -> tuple[str, float]:
    """What a command printed, and its seconds; what it had printed by the limit, where that ended it."""
    began = time.perf_counter()
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit, check=False)
        printed = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        so_far = error.stdout or b""
        text = so_far.decode(errors="replace") if isinstance(so_far, bytes) else so_far
        printed = f"{text}\nended after {limit} s"
    return printed, time.perf_counter() - began


def tests(device: str) -> dict[str, Any]:
    """The last line of pytest, and its slowest tests."""
    which = "gpu" if device == "cuda" else "gpu and not slow"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which]
    printed, seconds = finished([*words, "--durations=10"], LIMITS["tests"])
    slowest = re.findall(r"^\s*([\d.]+)s call\s+(\S+)", printed, re.MULTILINE)
    lines = printed.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"result": lines[-1], "seconds": round(seconds), "failed": failed, "slowest": slowest}


def recipes(data_dir: Path, device: str) -> dict[str, Any]:
    """Accuracy and time of the whole command."""
    found = {}
    for name in RECIPES:
        words = [sys.executable, "train.py", f"experiment={name}", f"data_dir={data_dir}"]
        words.append(f"trainer={'gpu' if device == 'cuda' else device}")
        printed, seconds = finished(words, LIMITS["recipes"])
        accuracies = re.findall(r"^(val|test)\s+accuracy ([\d.]+)", printed, re.MULTILINE)
        one: dict[str, Any] = {"seconds": round(seconds, 1)}
        one |= {split: float(accuracy) for split, accuracy in accuracies}
        if not accuracies:
            one["error"] = printed.strip().splitlines()[-1]
        found[name] = one
        print(f"{name}: {one}", flush=True)
    return found


def as_markdown(found: dict[str, Any]) -> str:
    """The tables of docs/speed.md."""
    lines = [f"{found['device']}, torch {found['torch']}, Python {found['python']}", ""]
    if "tests" in found:
        lines += [f"`pytest -m gpu`: {found['tests']['result']}", ""]
    names = ("ours", "ours, compiled", "bare", "bare, compiled", "GB")
    lines += [f"| images a second | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for task, speeds in found.get("training", {}).items():
        lines.append(f"| {task} | {' | '.join(f'{speeds.get(n, 0):,}' for n in names)} |")
    lines += ["", "| recipe | validation | test | seconds |", "|---|---|---|---|"]
    for name, one in found.get("recipes", {}).items():
        lines.append(
            f"| {name} | {one.get('val', '–')} | {one.get('test', '–')} | {one['seconds']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the parts, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data-dir", type=Path, help="a folder with fashion_mnist and cifar10")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each, best counts")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    parser.add_argument("--parts", default="training,tests,recipes")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of gpu.json and gpu.md")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this machine has no CUDA device; --device=cpu tries the program without one")
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "no GPU"
    found: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for part in arguments.parts.split(","):
        if part == "training":
            found[part] = training(arguments.repeats, arguments.device, arguments.only)
        elif part == "tests":
            found[part] = tests(arguments.device)
        elif part == "recipes" and arguments.data_dir is not None:
            found[part] = recipes(arguments.data_dir, arguments.device)
        (arguments.out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
        (arguments.out / "gpu.md").write_text(as_markdown(found))
    print(as_markdown(found))


if __name__ == "__main__":
    main()
