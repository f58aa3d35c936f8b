"""Test and measure the project on a GPU, in at most eight minutes; `make bench-gpu`.

    PYTHONPATH=src python benchmarks/gpu.py --data-dir data
    PYTHONPATH=src python benchmarks/gpu.py --data-dir data --airbench airbench94_muon.py --parts recipes,airbench

The tests, each recipe, each network and airbench run in separate processes with a time limit, so that a failure
or a hang does not end the others. The time that one leaves is available to the next ones. The parts are:
  tests     `pytest -m "gpu and not slow"`, in the files that have such tests, with its slowest ten
  recipes   `experiment=fashion_mnist_fast` and `cifar10_fast`, with their accuracy and time, if --data-dir holds
            the files; for CIFAR-10, cifar10.zip will do, which pack_cifar10.py writes
  training  images a second of an epoch, for each mode of compiling, and for a bare loop over tensors on the GPU
            with and without compiling: the best of several epochs after the first; and the GPU memory
  airbench  K. Jordan's airbench94_muon.py on the same images, if --airbench names it: its time and accuracy. It
            compiles for a minute or more before its first run
Writes gpu.json and gpu.md after each process, with the names of the GPU and the versions of torch and Python.
Without a GPU it stops at once; --device=cpu --quick tries the program itself with a few steps of everything. It
needs this repository, the packages of pyproject.toml without extras, pytest, pytest-timeout, pytest-xdist,
pyarrow, and a C compiler.
"""

import argparse
import csv
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from loops import Bench, in_memory
from omegaconf import DictConfig
from rich.console import Console
from tasks import BATCH_SIZE, TASKS, Task, compose_task, composing
from torch import Tensor

from glimpse.assembly import build_data
from glimpse.data.module import ImageDataModule
from glimpse.run import run

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
# Whole batches, so that compiled code meets one size only.
NUM_BATCHES = {"linear": 468, "mlp": 468, "small_convnet": 468, "convnet": 156}
MINUTES = 8.0  # for everything; with more, the limits grow
LIMITS = {"tests": 170, "recipe": 45, "training": 120, "airbench": 180}  # seconds of a process
RECIPES = {
    "fashion_mnist_fast": ("FashionMNIST/raw",),
    "cifar10_fast": ("cifar-10-batches-py", "cifar10"),
}
COMPILED = {"ours": False, "ours, compiled": "default", "ours, CUDA graphs": "reduce-overhead"}
COLUMNS = (*COMPILED, "bare", "bare, compiled", "GB")
GRACE = 10  # seconds in which a process that has run out of time says what it has found


@dataclass(frozen=True)
class Settings:
    """What the command line says, and when the time is over."""

    device: str
    quick: bool
    repeats: int
    data_dir: Path | None
    airbench: Path | None
    only: str
    minutes: float
    ends_at: float

    def limit(self, kind: str) -> float:
        """The seconds that a process may take."""
        wanted = LIMITS[kind] * self.minutes / MINUTES
        return max(0.0, min(wanted, self.ends_at - time.monotonic() - GRACE))


def finished(words: Sequence[str], limit: float) -> tuple[str, float]:
    """What a command printed, and its seconds. After the limit it is interrupted, then killed."""
    began = time.monotonic()
    path = os.pathsep.join(filter(None, (str(REPOSITORY / "src"), os.environ.get("PYTHONPATH"))))
    settings = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with TemporaryDirectory() as folder, (Path(folder) / "printed").open("w+b") as printed:
        process = subprocess.Popen(
            [sys.executable, *words],
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env=settings,
            start_new_session=True,
        )
        ended = ""
        for seconds, number in ((limit, signal.SIGINT), (GRACE, signal.SIGKILL)):
            try:
                process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                ended = f"\nended after {limit:.0f} s\n"
                os.killpg(process.pid, number)
        process.wait()
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    return text + ended, time.monotonic() - began


# Parts ----------------------------------------------------------------------------------------------


def tests(settings: Settings) -> dict[str, Any]:
    """The last line of pytest, what failed, and its slowest tests.

    Warnings are no errors here, because other versions of libraries warn of other things.
    """
    files = [
        str(path.relative_to(REPOSITORY))
        for path in sorted((REPOSITORY / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text()
    ]
    num_processes = max(1, min(6, (os.cpu_count() or 1) // 2))
    options = ["-m", "gpu and not slow", "-W", "default", "--timeout=60", f"-n{num_processes}"]
    options += ["-p", "no:cacheprovider", "--continue-on-collection-errors", "-rfE", "--tb=short"]
    words = ["-m", "pytest", *files, *options, "--durations=10"]
    printed, seconds = finished(words, settings.limit("tests"))
    found = re.findall(
        r"^=* ?(.*\d+ (?:passed|failed|skipped|error).*?) ?=*$", printed, re.MULTILINE
    )
    return {
        "result": found[-1] if found else printed.strip().splitlines()[-1],
        "seconds": round(seconds),
        "failed": re.findall(r"^(?:FAILED|ERROR) .*$", printed, re.MULTILINE),
        "slowest": re.findall(r"^\s*([\d.]+)s call\s+(\S+)", printed, re.MULTILINE),
        "printed": printed[-20_000:],
    }


def recipe(name: str, settings: Settings) -> dict[str, Any]:
    """Accuracy of a recipe, the seconds of its steps and of the whole command."""
    data_dir = settings.data_dir
    if data_dir is None or not any((data_dir / folder).is_dir() for folder in RECIPES[name]):
        return {"error": f"--data-dir={data_dir} has no {' and no '.join(RECIPES[name])}"}
    with TemporaryDirectory() as folder:
        words = ["train.py", f"experiment={name}", f"data_dir={data_dir}", f"output_dir={folder}"]
        words.append(f"trainer={'gpu' if settings.device == 'cuda' else settings.device}")
        if settings.quick:
            words += ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "test=val"]
            words += ["trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
        printed, seconds = finished(words, settings.limit("recipe"))
        rows = [row for path in Path(folder).rglob("metrics.csv") for row in rows_of(path)]
    found: dict[str, Any] = {"seconds": round(seconds, 1)}
    found["of steps"] = round(sum(float(row["seconds"] or 0) for row in rows), 2)
    for split, value, rest in re.findall(
        r"^(val|test)\s+accuracy ([\d.]+)(.*)$", printed, re.MULTILINE
    ):
        found[f"{split}, flip" if "flip" in rest else split] = float(value)
    if "val" not in found:
        found["error"] = printed.strip()[-2000:]
    return found


def airbench(settings: Settings) -> dict[str, Any]:
    """Seconds and accuracy of the runs that airbench94_muon.py makes within its limit."""
    assert settings.airbench is not None
    if settings.data_dir is None:
        return {"error": "--airbench needs --data-dir"}
    words = [str(HERE / "airbench.py"), str(settings.airbench.resolve())]
    ran, seconds = finished(
        [*words, "--data-dir", str(settings.data_dir)], settings.limit("airbench")
    )
    # Its table ends each run with a line that says eval: accuracies, then seconds.
    lines = [line for line in ran.splitlines() if re.search(r"\beval\b", line)]
    numbers = [[float(n) for n in re.findall(r"\d+\.\d+", line)] for line in lines]
    found = {"seconds": round(seconds, 1), "runs": [n for n in numbers if n]}
    return found if found["runs"] else found | {"error": ran.strip()[-2000:]}


def training(task: Task, settings: Settings) -> dict[str, Any]:
    """Images a second of each contender that a process found within its limit."""
    words = [str(HERE / "gpu.py"), "--task", task.name, "--device", settings.device]
    words += ["--repeats", str(settings.repeats), *(["--quick"] if settings.quick else [])]
    printed, _ = finished(words, settings.limit("training"))
    lines = [line for line in printed.splitlines() if line.startswith('{"task"')]
    found: dict[str, Any] = json.loads(lines[-1])["found"] if lines else {}
    return found if len(found) >= len(COLUMNS) - 1 else found | {"error": printed.strip()[-2000:]}


# A process of `training` ----------------------------------------------------------------------------


def measure(task: Task, settings: Settings) -> None:
    """Print what is known after each contender, as a line of JSON."""
    found: dict[str, float] = {}
    with composing() as folder:
        config = compose_task(task, folder)
        config.trainer.accelerator = "gpu" if settings.device == "cuda" else settings.device
        config.trainer.devices = 1
        config.trainer.max_epochs = settings.repeats + 1
        num_batches = 4 if settings.quick else NUM_BATCHES[task.name.split()[-1]]
        config.data.num_train = num_batches * BATCH_SIZE
        data = build_data(config)
        contenders: dict[str, Callable[[], float]] = {
            name: lambda mode=mode: ours(config, mode, folder)  # type: ignore[misc]
            for name, mode in COMPILED.items()
        }
        for name, compiled in (("bare", False), ("bare, compiled", True)):
            contenders[name] = lambda compiled=compiled: bare(  # type: ignore[misc]
                config, data, settings.repeats, compiled=compiled
            )
        for name in ("ours", "bare", "bare, compiled", "ours, compiled", "ours, CUDA graphs"):
            found[name] = contenders[name]()
            if settings.device == "cuda" and "GB" not in found:
                found["GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            print(json.dumps({"task": task.name, "found": found}), flush=True)


def ours(config: DictConfig, mode: str | bool, folder: Path) -> float:
    """The project's own epochs: the best but the first, which compiles."""
    config = config.copy()
    config.compile = mode
    run(config, folder / str(mode), {"data": "synthetic", "model": "benchmark"})
    speeds = [
        float(row["images_per_second"]) for row in rows_of(folder / str(mode) / "metrics.csv")
    ]
    return max(speeds[1:])


def bare(config: DictConfig, data: ImageDataModule, repeats: int, *, compiled: bool) -> float:
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

    return round(max([bench.timed(batches()) for _ in range(repeats + 1)][1:]), 1)


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# The record -----------------------------------------------------------------------------------------


def as_markdown(found: dict[str, Any]) -> str:
    """The tables of docs/speed.md."""
    lines = [f"{found['device']}, torch {found['torch']}, Python {found['python']}", ""]
    if "tests" in found:
        lines += [f"`pytest -m gpu`: {found['tests']['result']}, {found['tests']['seconds']} s", ""]
        lines += [f"- `{line}`" for line in found["tests"]["failed"]] + [""]
    lines += [f"| images a second | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for task, speeds in found.get("training", {}).items():
        cells = [f"{speeds[name]:,}" if name in speeds else "–" for name in COLUMNS]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    columns = ("val", "test", "test, flip", "of steps", "seconds")
    lines += ["", f"| recipe | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, one in found.get("recipes", {}).items():
        lines.append(f"| {name} | {' | '.join(str(one.get(c, '–')) for c in columns)} |")
    if "airbench" in found:
        lines += [
            "",
            f"airbench94_muon, accuracies and seconds: {found['airbench'].get('runs', [])}",
        ]
    errors = {
        f"{part}, {name}": one["error"]
        for part in ("recipes", "training")
        for name, one in found.get(part, {}).items()
        if "error" in one
    }
    lines += [f"\n{name}:\n```\n{text}\n```" for name, text in errors.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the parts, and write after each process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything together")
    parser.add_argument("--data-dir", type=Path, help="a folder with Fashion-MNIST and CIFAR-10")
    parser.add_argument("--airbench", type=Path, help="the file airbench94_muon.py")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each, best counts")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    parser.add_argument("--parts", default="tests,recipes,training,airbench")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of gpu.json and gpu.md")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "this machine has no CUDA device; --device=cpu --quick tries the program without one"
        )
    settings = Settings(
        device=given.device,
        quick=given.quick,
        repeats=1 if given.quick else given.repeats,
        data_dir=given.data_dir and given.data_dir.resolve(),
        airbench=given.airbench,
        only=given.only,
        minutes=given.minutes,
        ends_at=time.monotonic() + 60 * given.minutes,
    )
    if given.task:
        measure(next(task for task in TASKS if task.name == given.task), settings)
        return
    folder = settings.data_dir
    if folder and (folder / "cifar10.zip").is_file() and not (folder / "cifar10").is_dir():
        shutil.unpack_archive(folder / "cifar10.zip", folder)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "no GPU",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for part in given.parts.split(","):
        for name, result in results(part, settings):
            found.setdefault(part, {}).update({name: result} if name else result)
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
            (given.out / "gpu.md").write_text(as_markdown(found))
    Console(width=110).print(as_markdown(found), markup=False, highlight=False)


def results(part: str, settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the processes of a part found, by name; the largest networks first."""
    if part == "tests":
        yield "", tests(settings)
    elif part == "recipes":
        for name in RECIPES:
            yield name, recipe(name, settings)
    elif part == "airbench" and settings.airbench is not None:
        yield "", airbench(settings)
    elif part == "training":
        for task in reversed(TASKS):
            if settings.only in task.name:
                yield task.name, training(task, settings)


if __name__ == "__main__":
    main()
