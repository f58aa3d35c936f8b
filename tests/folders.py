"""Run folders: written as a training would leave them, without one, and read."""

import csv
import json
from pathlib import Path
from typing import Any

import yaml

CONFIG: dict[str, Any] = {
    "task": "fit",
    "seed": 0,
    "name": "${now:%Y}",
    "output_dir": "outputs",
    "callbacks": {},
    "data": {"_target_": "glimpse.data.sets.digits.Digits", "batch_size": 64, "split_seed": 0},
    "model": {"_target_": "glimpse.models.linear.Linear"},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001, "eps": 1e-8},
    "trainer": {"max_epochs": 2},
}
HEADER = "epoch,step,train/loss,train/acc,val/loss,val/acc,val/top5,lr,images_per_second,seconds"
COMMIT = "4ae4e5b56b2e0c963b1dc6a4d32bc58f3cd31b38"


def write_run(
    folder: Path,
    *,
    accuracy: float = 0.5,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    overrides: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A finished run; `changes` are the summary's, `config` adds to (or empties) groups of it, and
    `settings` replaces its root keys."""
    write_start(folder, seed=seed, config=config, overrides=overrides, settings=settings)
    summary = {
        "status": "finished", "data": "digits", "model": "linear", "seed": seed, "epochs": 2,
        "best_epoch": 2, "parameters": 650, "seconds": 3.0, "images_per_second": 1000.0,
        "majority_acc": 0.1, "attempt": "first",
        "metrics": {"val/acc": accuracy, "train/acc": accuracy + 0.1, "test/acc": accuracy},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    return folder


def write_start(
    folder: Path,
    *,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    overrides: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
) -> Path:
    """What lies in a run folder before the run ends."""
    composed = CONFIG | {"seed": seed} | (settings or {})
    for group, changed in (config or {}).items():
        composed[group] = changed if "_target_" in changed else composed[group] | changed
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "config.yaml").write_text(yaml.safe_dump(composed, sort_keys=False))
    (hydra / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    chosen = {"hydra": {"runtime": {"choices": {"data": "digits", "model": "mlp"}}}}
    (hydra / "hydra.yaml").write_text(yaml.safe_dump(chosen))
    rows = [f"{i},{i},{2 / i},{i / 4},{3 / i},{i / 5},,0.1,100,1.5" for i in (1, 2)]
    (folder / "metrics.csv").write_text("\n".join([HEADER, *rows, ""]))
    write_environment(folder, "train.py", *overrides)
    return folder


def write_environment(
    folder: Path, *command: str, dirty: bool = False, host: str = "desk", attempt: str = "first"
) -> None:
    environment = {
        "command": command, "versions": {"torch": "2.14.1"}, "host": host, "threads": 2,
        "git": {"commit": COMMIT, "dirty": dirty}, "attempt": attempt,
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment))


def read_summary(folder: Path) -> dict[str, Any]:
    """The content of a run's summary.json."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv."""
    return rows_of(folder / "metrics.csv")


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
