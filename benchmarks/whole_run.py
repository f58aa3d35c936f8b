"""What a run costs beyond its training steps; a part of `make bench`. Linux, for the memory.

  command   seconds from the shell to the prompt: of `python train.py`, of the same without pictures and
            loggers, and of the imports alone; the best of several
On generated images of Tiny ImageNet's shape, with the plain convnet:
  start-up  seconds from the command to the first training step, beside those of
            `import torch, torchvision, lightning` alone; the best of several
  epoch     what an epoch takes that is neither training nor the validation's own steps: logging,
            checkpoints, starting and ending; as a share of an epoch of 100,000 images at the
            speed measured here
  memory    the most anonymous memory (mapped pages of a cache are not) that the run holds; with
            `--data-dir`, of a run on Tiny ImageNet itself
Writes benchmarks/whole_run.json.
"""

import argparse
import csv
import json
import math
import runpy
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).parents[1]
IMPORTS = "import torch, torchvision, lightning"
LEAN = "from glimpse.memory import without_collection\nwith without_collection('glimpse.run'): "
COMMANDS = {
    "python train.py": ["train.py"],
    "without pictures and loggers": ["train.py", "callbacks.pictures=null", "logger=none"],
    "its imports": ["-c", f"{LEAN}import glimpse.run, sklearn.model_selection"],
}
TINY_IMAGENET = 100_000  # training images of an epoch
NUM_TRAIN, NUM_EPOCHS = 1_920, 3
GENERATED = [
    "data=synthetic", "data.shape=[3,64,64]", "data.num_classes=200", f"data.num_train={NUM_TRAIN}",
    "data.num_val=640", "model=convnet", f"trainer.max_epochs={NUM_EPOCHS}", "test=false",
]  # fmt: skip
FROM_DISK = [
    "experiment=tiny_imagenet_first_go", "trainer.max_epochs=1", "trainer.limit_train_batches=30",
    "trainer.limit_val_batches=10", "test=false",
]  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="starts, best counts")
    parser.add_argument(
        "--data-dir", help="where tiny-imagenet-200 lies, for the memory of its run"
    )
    arguments = parser.parse_args()
    imports, starts = [], []
    results: dict[str, float] = {}
    for _ in range(arguments.repeats):
        for what, words in COMMANDS.items():
            key = f"seconds of {what}"
            results[key] = min(results.get(key, math.inf), round(command_seconds(words), 2))
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        imports.append(time.perf_counter() - began)
        seconds, _ = run_watched([*GENERATED, "trainer.limit_train_batches=1"])
        starts.append(seconds["first_step"])
    seconds, memory = run_watched(GENERATED)
    if arguments.data_dir:
        _, memory = run_watched([*FROM_DISK, f"data_dir={arguments.data_dir}"])
    beyond = (seconds["fit"] - seconds["training"] - seconds["validation"]) / NUM_EPOCHS
    whole_epoch = seconds["training"] / NUM_EPOCHS * TINY_IMAGENET / NUM_TRAIN
    results |= {
        "seconds to the imports": round(min(imports), 2),
        "seconds to the first step": round(min(starts), 2),
        "seconds of an epoch beyond its steps": round(beyond, 2),
        "share of a Tiny ImageNet epoch": round(beyond / whole_epoch, 4),
        "GB of anonymous memory": round(memory / 1e9, 2),
    }
    for what, value in results.items():
        print(f"{what}: {value}")
    (Path(__file__).parent / "whole_run.json").write_text(json.dumps(results, indent=2) + "\n")


def command_seconds(words: list[str]) -> float:
    """How long a command of Python takes, from the shell to the prompt."""
    with TemporaryDirectory() as folder:
        place = [f"output_dir={folder}"] if words[0] == "train.py" else []
        began = time.perf_counter()
        command = [sys.executable, *words, *place]
        subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
        return time.perf_counter() - began


def run_watched(overrides: list[str]) -> tuple[dict[str, float], int]:
    """A run in a process of its own: what its clocks show, and the most anonymous memory in bytes."""
    with TemporaryDirectory() as folder:
        began = time.time()
        command = [sys.executable, __file__, "watched", *overrides, f"output_dir={folder}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            most = 0
            while process.poll() is None:
                status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                held = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
                most = max(most, *held, 0)
                time.sleep(0.1)
            assert process.stdout is not None
            *_, line = process.stdout.read().splitlines()
        seconds: dict[str, float] = json.loads(line)
        seconds["first_step"] -= began
        [metrics] = Path(folder).rglob("metrics.csv")
        with metrics.open(newline="") as file:
            seconds["training"] = sum(float(row["seconds"]) for row in csv.DictReader(file))
    return seconds, most * 1024


def watched(overrides: list[str]) -> None:
    """train.py with clocks around the classifier's steps; the last line says what they show."""
    sys.argv = ["train.py", *overrides]
    seconds = {"first_step": 0.0, "fit": 0.0, "validation": 0.0}
    sys.path.insert(0, str(REPOSITORY))
    import lightning.pytorch as pl

    from glimpse.classifier import ImageClassifier

    def clocked(of: type, name: str, key: str) -> None:
        function = getattr(of, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            seconds[key] += time.perf_counter() - began
            return result

        setattr(of, name, timed)

    step = ImageClassifier.training_step

    def first_step(self: ImageClassifier, batch: Any, batch_idx: int) -> Any:
        seconds["first_step"] = seconds["first_step"] or time.time()
        return step(self, batch, batch_idx)

    ImageClassifier.training_step = first_step  # type: ignore[method-assign]
    clocked(ImageClassifier, "validation_step", "validation")
    clocked(pl.Trainer, "fit", "fit")
    try:
        runpy.run_path(str(REPOSITORY / "train.py"), run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise
    print(json.dumps(seconds))


if __name__ == "__main__":
    watched(sys.argv[2:]) if sys.argv[1:2] == ["watched"] else main()
