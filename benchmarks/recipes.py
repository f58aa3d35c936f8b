"""Repeat a row of docs/results.md: train a recipe with several seeds, and print the row.

    python benchmarks/recipes.py fashion_mnist_fast --seeds 3 data_dir=/data

The runs are a sweep, outputs/sweeps/recipe-NAME: the same command continues it. What follows the name
is overrides, as train.py takes them. To train on all images of CIFAR-10 once the settings are fixed,
and to measure the last epoch on the official test images, without choosing among epochs by them:

    python benchmarks/recipes.py cifar10_fast data.val_fraction=0 trainer.check_val_every_n_epoch=11 name=all

Prints a table of one line. Accuracies are the mean ± sample standard deviation over the seeds.
The seconds are those of the fastest and the slowest whole run; they mean something only if nothing
else was running.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from glimpse.records import FINISHED, finite
from glimpse.runs.folder import Run, find_runs
from glimpse.runs.groups import group
from glimpse.runs.report import as_markdown
from glimpse.runs.settings import environment_of

REPOSITORY = Path(__file__).parents[1]


def main() -> None:
    """Train, read, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="a name in conf/experiment", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    arguments, overrides = parser.parse_known_args()
    seeds = f"seed=choice({','.join(map(str, range(arguments.seeds)))})"
    named = [f"name=recipe-{arguments.recipe}", f"experiment={arguments.recipe}", seeds, *overrides]
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), "-m", *named], check=False
    )
    if ended.returncode:
        sys.exit(ended.returncode)
    print(row(sweep_folder(named), shlex.join(["python", "train.py", "-m", *named[1:]])))


def sweep_folder(overrides: list[str]) -> Path:
    """Where a sweep with these overrides keeps its jobs."""
    values = dict(override.split("=", 1) for override in overrides if "=" in override)
    return Path(values.get("output_dir", "outputs")) / "sweeps" / values["name"]


def row(folder: Path, command: str) -> str:
    """A table of one line over the finished runs of a sweep with one setting."""
    [found] = [g for g in group(find_runs(folder)) if g.status == FINISHED]
    first = found.runs[0]
    cells = {"command": f"`{command}`", "n": str(len(found.runs))}
    for split in ("test", "val", "train"):
        names = sorted(name for name in first.metrics if name.startswith(f"{split}/acc"))
        cells |= {name: str(found.metric(name)) for name in names}
    cells["seconds"] = _seconds(found.runs)
    cells["machine"] = _machine(first)
    cells["chosen by"] = _chooser(first)
    return as_markdown(list(cells), [list(cells.values())])


def _seconds(runs: list[Run]) -> str:
    values = sorted(value for run in runs if (value := run.number("seconds")) is not None)
    return f"{values[0]:,.0f} to {values[-1]:,.0f}" if values else "–"


def _machine(run: Run) -> str:
    found = environment_of(run.folder)
    cores = f"{found.get('threads')} of {found.get('cores')} cores"
    return ", ".join(str(part) for part in (found.get("processor"), cores, found.get("precision")))


def _chooser(run: Run) -> str:
    """The images by which the checkpoint was chosen among the epochs."""
    fraction = finite(run.settings.get("data.val_fraction")) or 0.0
    if fraction:
        return f"{fraction:.0%} of the training images"
    every, epochs = (
        run.settings.get(f"trainer.{key}") for key in ("check_val_every_n_epoch", "max_epochs")
    )
    if every == epochs:
        return "nothing: the last epoch"
    return "the official held-out images, which also measure"


if __name__ == "__main__":
    main()
