"""Run K. Jordan's airbench94_muon.py on our copy of CIFAR-10, for comparison with `cifar10_fast`.

    PYTHONPATH=src python benchmarks/airbench.py airbench94_muon.py --data-dir data
    PYTHONPATH=src python benchmarks/airbench.py airbench94_muon.py --data-dir data --device cpu --runs 1

The file is from github.com/KellerJordan/cifar10-airbench. On a GPU, only its number of runs changes, if --runs is
given. On a CPU, its loop, network, settings and views stay the same, but three things change: fp32 replaces fp16,
with the network under autocast to bf16; nothing is compiled or warmed up; and a clock replaces CUDA's events. The
file prints a table, in which each run ends with a line for the epoch "eval". This line gives the accuracy on the
last batch, on the test images, and on the test images with six views, and then the seconds.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose
from tasks import composing
from torch import nn

from glimpse.assembly import build_data

SPLITS = {"train": "train", "test": "val"}  # its name of a split, and ours without `val_fraction`
FOR_CPU = {
    ".half()": ".float()",
    'torch.device("cuda")': '"cpu"',
    "CifarNet().cuda()": "CifarNet()",
    '    main("warmup", model)\n': "",
    "    def forward(self, x, whiten_bias_grad=True):": '    @torch.autocast("cpu", torch.bfloat16)\n'
    "    def forward(self, x, whiten_bias_grad=True):",
    "return self.head(x) / x.size(-1)": "return self.head(x).float() / x.size(-1)",
}
RUNS = "range(200)"


class Event:
    """torch.cuda.Event, by the clock of the processor."""

    def __init__(self, **_: Any) -> None:
        self.seconds = 0.0

    def record(self) -> None:
        """Note the time."""
        self.seconds = time.perf_counter()

    def elapsed_time(self, later: "Event") -> float:
        """Milliseconds until another event."""
        return 1e3 * (later.seconds - self.seconds)


def write_images(folder: Path, data_dir: Path) -> None:
    """Write CIFAR-10 as the program keeps it after its first run."""
    with composing():
        chosen = ["data=cifar10", f"data_dir={data_dir}", "data.val_fraction=0"]
        data = build_data(compose("train", overrides=chosen))
    (folder / "cifar10").mkdir()
    for name, split in SPLITS.items():
        loader = data.batches.loader(split)
        loader.order.batch_size = len(loader.rows)
        [batch] = list(loader)
        content = {"images": batch.images, "labels": batch.labels, "classes": data.spec.class_names}
        torch.save(content, folder / "cifar10" / f"{name}.pt")


def replaced(source: str, replacements: dict[str, str]) -> str:
    """Replace parts of the program.

    Raises:
        SystemExit: it has no such part.
    """
    for old, new in replacements.items():
        if old not in source:
            sys.exit(f"{old!r} is not in the file: expected airbench94_muon.py as of 2025")
        source = source.replace(old, new)
    return source


def main() -> None:
    """Run the program in a folder with its images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="airbench94_muon.py")
    parser.add_argument("--data-dir", type=Path, required=True, help="a folder with CIFAR-10")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--runs", type=int, help="how many; 200 unless given")
    given = parser.parse_args()
    file = given.file.resolve()
    replacements = {RUNS: f"range({given.runs})"} if given.runs else {}
    if given.device == "cpu":
        replacements |= FOR_CPU
        torch.compile = lambda function, **_: function  # type: ignore[assignment]
        nn.Module.compile = lambda *_, **__: None  # type: ignore[method-assign]
        torch.cuda.Event, torch.cuda.synchronize = Event, lambda: None  # type: ignore[misc,assignment]
    source = replaced(file.read_text(), replacements)
    with TemporaryDirectory() as folder:
        write_images(Path(folder), given.data_dir.resolve())
        os.chdir(folder)
        sys.argv = [str(file)]  # which it reads to keep its own text
        exec(compile(source, str(file), "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
