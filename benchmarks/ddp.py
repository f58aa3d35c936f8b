"""What a second process gains on one machine; a part of `make bench`.

Trains a plain convnet on generated images once in one process and once in two, with the same images in
each batch and one thread for each process. Prints the speed of two over that of one, by the images per
second of the second epoch. Two processes on two idle cores could reach 2. Writes benchmarks/ddp.json.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).parents[1]
WORK = [
    "data=synthetic", "data.shape=[3,32,32]", "data.num_train=2048", "data.num_val=64",
    "data.global_batch_size=128", "model=convnet_bn", "model.widths=[32,64,128]", "logger=none",
    "callbacks.pictures=null", "test=false", "trainer.max_epochs=2",
]  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, best counts")
    repeats = parser.parse_args().repeats
    found: dict[str, float] = {"cpu": 0.0, "ddp_cpu": 0.0}
    for _ in range(repeats):
        for trainer in found:
            found[trainer] = max(found[trainer], images_per_second(trainer))
    results = {
        "one process, images a second": found["cpu"],
        "two processes, images a second": found["ddp_cpu"],
        "two over one": round(found["ddp_cpu"] / found["cpu"], 2),
    }
    for what, value in results.items():
        print(f"{what}: {value}")
    (Path(__file__).parent / "ddp.json").write_text(json.dumps(results, indent=2) + "\n")


def images_per_second(trainer: str) -> float:
    """The speed of the second epoch of a run in processes of its own."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, str(REPOSITORY / "train.py"), *WORK, f"trainer={trainer}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, f"output_dir={folder}"], check=True, env=environment, capture_output=True
        )
        [metrics] = Path(folder).rglob("metrics.csv")
        with metrics.open(newline="") as file:
            *_, last = csv.DictReader(file)
    return float(last["images_per_second"])


if __name__ == "__main__":
    main()
