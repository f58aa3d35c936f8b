"""A search that stops trials early against the same search without; a part of `make bench`.

Each search tries learning rate, momentum, weight decay and network on a part of Fashion-MNIST. Both kinds
begin with the same suggestions, take turns, and run one trial at a time. Printed for each seed:
  best   val/acc of the best trial, of the whole search and of the pruned one
  share  the pruned search's time as a share of the whole one's, each from command to exit
and at the end the means, and the standard deviation of val/acc over seeds at the best setting found: what a
difference has to exceed to mean anything. Writes benchmarks/search.json.

Fashion-MNIST is taken from `--data-dir`, where train.py keeps its datasets, or downloaded into it.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).parents[1]
NUM_TRIALS = 18
WORK = [
    "data=fashion_mnist", "data.val_fraction=0.1", "trainer=cpu", "trainer.max_epochs=8",
    "trainer.limit_train_batches=200", "test=false", "logger=none", "callbacks.pictures=null",
]  # fmt: skip
SPACE = [
    "model=linear,mlp,small_convnet", "optimizer=sgd", "optimizer.lr=tag(log,interval(1e-3,3))",
    "optimizer.momentum=interval(0,0.98)", "optimizer.weight_decay=tag(log,interval(1e-6,1e-2))",
]  # fmt: skip
SEARCH = ["-m", "hydra/sweeper=search", f"hydra.sweeper.n_trials={NUM_TRIALS}"]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=3, help="searches of each kind")
    parser.add_argument("--pruner", default="median", choices=("median", "hyperband"))
    parser.add_argument("--data-dir", default="data", help="where FashionMNIST/raw lies")
    parser.add_argument("--url", help="where to take Fashion-MNIST from, as data.url does")
    arguments = parser.parse_args()
    here = [f"data_dir={Path(arguments.data_dir).resolve()}"]
    here += [f"data.url={arguments.url}"] if arguments.url else []
    rows = []
    with TemporaryDirectory() as folder:
        here += [f"output_dir={folder}"]
        train([*here, *WORK, "trainer.max_epochs=1"])  # the data is cached by then
        for seed in range(arguments.searches):
            row: dict[str, Any] = {"seed": seed}
            kinds = {"whole": "none", "pruned": arguments.pruner}
            for name, pruner in list(kinds.items())[:: 1 if seed % 2 == 0 else -1]:
                search = [*SEARCH, f"hydra.sweeper.pruner={pruner}", f"seed={seed}"]
                row |= {
                    f"{name} seconds": train([*search, *here, *WORK, *SPACE, f"name={name}-{seed}"])
                }
                jobs = jobs_of(Path(folder) / "sweeps" / f"{name}-{seed}")
                row |= {f"{name} best": max(j["metric"] for j in jobs if j["state"] == "finished")}
                row |= {f"{name} stopped": sum(j["state"] == "pruned" for j in jobs)}
            row |= {"share": row["pruned seconds"] / row["whole seconds"]}
            print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
            rows.append(row)
        noise = noise_at_best(Path(folder) / "sweeps" / "whole-0", [*here, *WORK])
    results = {
        "pruner": arguments.pruner,
        "share of the time": fmean(row["share"] for row in rows),
        "best val/acc, pruned less whole": fmean(
            row["pruned best"] - row["whole best"] for row in rows
        ),
        "standard deviation over seeds": noise,
        "searches": rows,
    }
    for what, value in list(results.items())[1:4]:
        print(f"{what}: {value:.4f}")
    (Path(__file__).parent / "search.json").write_text(json.dumps(results, indent=2) + "\n")


def train(overrides: list[str]) -> float:
    """Run train.py; returns its seconds. Trials that diverge do not fail a search."""
    began = time.perf_counter()
    command = [sys.executable, str(REPOSITORY / "train.py"), *overrides]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{' '.join(command)}\n{ended.stderr}")
    return time.perf_counter() - began


def jobs_of(sweep: Path) -> list[dict[str, Any]]:
    """The jobs of a sweep, from its record."""
    jobs: list[dict[str, Any]] = json.loads((sweep / "sweep.json").read_text())["jobs"]
    return jobs


def noise_at_best(sweep: Path, work: list[str]) -> float:
    """The standard deviation of val/acc over three seeds at the best setting of a sweep."""
    finished = [job for job in jobs_of(sweep) if job["state"] == "finished"]
    best = max(finished, key=lambda job: job["metric"])
    train(["-m", *work, "optimizer=sgd", *best["overrides"], "seed=1,2,3", "name=noise"])
    found: float = stdev(job["metric"] for job in jobs_of(sweep.parent / "noise"))
    return found


if __name__ == "__main__":
    main()
