"""What a sweep costs beyond its jobs; a part of `make bench`.

  one after the other   20 linear jobs on the digits: seconds a job after the first, and as a ratio to the
                        same run alone without its imports
  two at a time         the same sweep with hydra.launcher.n_jobs=2, as a ratio to one after the other
  second run            the command again over a finished sweep of 1,000 jobs, of which a few were trained
                        and the others copied: seconds, and milliseconds a job
Writes benchmarks/sweeps.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).parents[1]
JOBS = ("model=linear", "trainer=cpu")
NUM_JOBS = 20
NUM_FINISHED = 1_000


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--finished", type=int, default=NUM_FINISHED, help="jobs of the second run")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        alone = seconds_of_runs(folder, "alone", num_jobs=1)[0]
        took, jobs = sweep(folder, "one", num_jobs=NUM_JOBS)
        took_two, _ = sweep(folder, "two", "hydra.launcher.n_jobs=2", num_jobs=NUM_JOBS)
        second = second_run(folder, arguments.finished)
    after_the_first = sum(jobs[1:]) / len(jobs[1:])
    results = {
        "seconds of one run, without imports": round(alone, 2),
        f"seconds of {NUM_JOBS} jobs, one after the other": round(took, 1),
        "seconds of a job after the first": round(after_the_first, 2),
        "ratio to one run": round(after_the_first / alone, 2),
        f"seconds of {NUM_JOBS} jobs, two at a time": round(took_two, 1),
        "ratio of two at a time to one after the other": round(took_two / took, 2),
        f"seconds of the second run of {arguments.finished:,} jobs": round(second, 1),
        "milliseconds a job": round(1000 * second / arguments.finished, 1),
    }
    for what, value in results.items():
        print(f"{what}: {value}")
    (Path(__file__).parent / "sweeps.json").write_text(json.dumps(results, indent=2) + "\n")


def command(folder: Path, name: str, *options: str, seeds: str) -> list[str]:
    """The command of a sweep over seeds."""
    train = [sys.executable, str(REPOSITORY / "train.py"), "-m", *JOBS, *options]
    return [*train, f"seed={seeds}", f"name={name}", f"output_dir={folder}"]


def sweep(folder: Path, name: str, *options: str, num_jobs: int) -> tuple[float, list[float]]:
    """Run a sweep: seconds of the whole command, and of each job."""
    began = time.perf_counter()
    words = command(folder, name, *options, seeds=f"range({num_jobs})")
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, seconds_of_jobs(folder / "sweeps" / name)


def seconds_of_runs(folder: Path, name: str, *, num_jobs: int) -> list[float]:
    """Run a sweep: the seconds of each job."""
    return sweep(folder, name, num_jobs=num_jobs)[1]


def seconds_of_jobs(folder: Path) -> list[float]:
    """The seconds that each job of a sweep took, in the order of the sweep."""
    jobs: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["jobs"]
    return [float(job["seconds"]) for job in jobs]


def second_run(folder: Path, num_jobs: int) -> float:
    """Seconds of the command over a finished sweep: one job is trained, the others are copies of it."""
    sweep(folder, "many", num_jobs=1)
    original = folder / "sweeps" / "many" / "seed-0"
    for seed in range(1, num_jobs):
        copy = original.with_name(f"seed-{seed}")
        copy.mkdir()
        for path in original.iterdir():
            if path.is_dir() and path.name == ".hydra":
                shutil.copytree(path, copy / path.name)
            else:
                os.symlink(path, copy / path.name) if path.is_dir() else shutil.copy(path, copy)
        config = copy / ".hydra" / "config.yaml"
        config.write_text(config.read_text().replace("\nseed: 0\n", f"\nseed: {seed}\n"))
    words = command(folder, "many", seeds=f"range({num_jobs})")
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
