"""A run folder as plain facts: how the run ended, its settings, epochs and pictures.

The only reader of what a run leaves behind that needs neither torch nor lightning; checkpoints are
not opened. A folder is a run if it holds `.hydra` or `summary.json`; the folder of a sweep, which
holds `multirun.yaml` and its jobs, is not.
"""

import csv
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from glimpse.errors import UserError
from glimpse.files import is_own_file

# A run without a summary counts as running if its training wrote anything in the last ten
# minutes, or in the time of its three longest epochs; else as killed, with a question mark, since
# a first epoch may take longer than that.
QUIET_SECONDS = 600
NUM_QUIET_EPOCHS = 3
RUNNING, KILLED, UNREADABLE = "running", "killed?", "unreadable"
FINISHED, FAILED = "finished", "failed"  # of what summary.json says

# environment.json is written when a run starts or is resumed, summary.json when it ends; this far
# apart in the wrong order is a run that was resumed, nearer is a copied folder.
RESUMED_SECONDS = 5

# Where a run lies and how it was started, not what it is.
PLACES = ("name", "data_dir", "output_dir", "resume", "check")

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is built


@dataclass(frozen=True)
class Run:
    """A run folder and what it says.

    Attributes:
        status: finished, interrupted, failed; or running, killed?, unreadable.
        summary: summary.json; what else is known where there is none.
        settings: the composed configuration as one would type it, `optimizer.lr` → `0.001`; empty if
            not recorded.
        problem: one line on what went wrong, if anything did.
    """

    folder: Path
    status: str
    summary: dict[str, Any]
    settings: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def data(self) -> str:
        return str(self.summary.get("data") or "?")

    @property
    def model(self) -> str:
        return str(self.summary.get("model") or "?")

    @property
    def metrics(self) -> dict[str, float]:
        """Of the best checkpoint, both splits in evaluation mode."""
        found = self.summary.get("metrics")
        if not isinstance(found, dict):
            return {}
        return _numbers(found)

    @property
    def reported(self) -> str:
        """The split that measures the run."""
        return "test" if "test/acc" in self.metrics else "val"

    @property
    def accuracy(self) -> float | None:
        """On that split."""
        return self.metrics.get(f"{self.reported}/acc")

    def number(self, name: str) -> float | None:
        """A number of the summary: parameters, seconds, majority_acc …"""
        return _numbers({name: self.summary.get(name)}).get(name)


def find_runs(root: Path) -> list[Run]:
    """Every run in and below `root`, by folder.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder")
    runs = [read_run(folder) for folder in _run_folders(root)]
    if not runs:
        raise UserError(f"{root}: no runs in it; `python train.py` makes one")
    return runs


def one_run(folder: Path) -> Run:
    """The run of a folder.

    Raises:
        UserError: it is not a run folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    if not is_run(folder):
        raise UserError(f"{folder}: not a run folder (it has neither .hydra nor summary.json)")
    return read_run(folder)


def is_run(folder: Path) -> bool:
    return (folder / ".hydra").is_dir() or (folder / "summary.json").is_file()


def _run_folders(folder: Path) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != "."]
    for name in sorted(names):
        yield from _run_folders(folder / name)


def read_run(folder: Path) -> Run:
    """A folder that is a run, whatever state it is in."""
    environment = environment_of(folder)
    settings = _settings(folder, environment)
    if not (folder / "summary.json").exists() or _was_resumed_since(folder):
        return _without_summary(folder, settings)
    try:
        summary = json.loads(_read(folder, "summary.json"))
        status = str(summary["status"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = str(error).splitlines()[0]
        problem = f"summary.json cannot be read ({type(error).__name__}: {cause})"
        return Run(folder, UNREADABLE, _choices(folder), settings, problem)
    return Run(folder, status, summary, settings, str(summary.get("error", "")))


def _read(folder: Path, name: str) -> str:
    """The text of a file of a run folder.

    Raises:
        OSError: it cannot be read, or is not a file of the folder itself.
    """
    path = folder / name
    if path.exists() and not is_own_file(folder, path):
        raise OSError(f"{name} is no file of this folder")
    return path.read_text(encoding="utf-8")


def _was_resumed_since(folder: Path) -> bool:
    try:
        started = (folder / "environment.json").stat().st_mtime
    except OSError:
        return False
    return started > (folder / "summary.json").stat().st_mtime + RESUMED_SECONDS


def _without_summary(folder: Path, settings: dict[str, str]) -> Run:
    rows = epochs_of(folder)
    longest = max((row.get("seconds", 0.0) for row in rows), default=0.0)
    quiet = time.time() - _last_written(folder)
    is_running = quiet < max(QUIET_SECONDS, NUM_QUIET_EPOCHS * longest)
    best = max(rows, key=lambda row: row.get("val/acc", -1.0), default={})
    summary = _choices(folder) | {
        "seed": settings.get("seed"),
        "epochs": int(rows[-1]["epoch"]) if rows else 0,
        # Of the training split an epoch's row has the running average, which is another quantity.
        "metrics": {name: value for name, value in best.items() if name.startswith("val/")},
    }
    problem = "" if is_running else f"no summary, and nothing written for {_ago(quiet)}"
    return Run(folder, RUNNING if is_running else KILLED, summary, settings, problem)


def _last_written(folder: Path) -> float:
    """By the training: reports and pictures are made of a dead run too."""
    written = (".hydra/*", "environment.json", "metrics.csv", "checkpoints/*", "tensorboard/*")
    paths = [path for pattern in written for path in folder.glob(pattern)]
    return max((path.stat().st_mtime for path in paths), default=0.0)


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _choices(folder: Path) -> dict[str, Any]:
    """Which `data` and `model` were chosen, where no summary says it."""
    try:
        recorded = _yaml(_read(folder, ".hydra/hydra.yaml"))
        choices = recorded["hydra"]["runtime"]["choices"]
        return {group: choices[group] for group in ("data", "model")}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return {}


def _settings(folder: Path, environment: dict[str, Any]) -> dict[str, str]:
    """The recorded configuration, and over it what was typed when the run was resumed."""
    try:
        text = _read(folder, ".hydra/config.yaml")
        settings: dict[str, str] = {}
        for block in _blocks(text):
            settings |= _flat_block(block)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    for override in _typed_at_resume(environment):
        key, _, value = override.partition("=")
        if key in settings:
            settings[key] = _as_text(_yaml(value))
    return settings


def _blocks(text: str) -> list[str]:
    """A block for each top key: the blocks of many runs are equal, and are parsed once."""
    blocks: list[str] = []
    for line in text.splitlines(keepends=True):
        if line[0] in " -#\n" and blocks:
            blocks[-1] += line
        else:
            blocks.append(line)
    return blocks


@cache
def _flat_block(block: str) -> dict[str, str]:
    return _flatten(_yaml(block) or {})


def _flatten(node: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"optimizer": {"lr": 1}}` as `{"optimizer.lr": "1"}`; empty mappings are nothing."""
    if not isinstance(node, dict):
        raise ValueError(f"{node}: expected keys and values")
    flat: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _as_text(value)
    return flat


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _yaml(text: str) -> Any:
    return yaml.load(text, YAML_LOADER)


def environment_of(folder: Path) -> dict[str, Any]:
    """environment.json; empty if there is none that can be read."""
    try:
        found = json.loads(_read(folder, "environment.json"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def overrides_of(folder: Path) -> list[str]:
    """What was typed for the run: a sweep's job has its own part, a resumed run both times'."""
    try:
        recorded = _yaml(_read(folder, ".hydra/overrides.yaml")) or []
    except (OSError, ValueError, yaml.YAMLError):
        recorded = []
    typed = [*map(str, recorded), *_typed_at_resume(environment_of(folder))]
    return list({override.partition("=")[0]: override for override in typed}.values())


def _typed_at_resume(environment: Mapping[str, Any]) -> list[str]:
    """`train.py` starts a resumed run as: recorded overrides, resume=, hydra's own, new overrides."""
    command = [str(word) for word in environment.get("command") or []]
    at = [i for i, word in enumerate(command) if word.startswith("resume=")]
    later = command[at[-1] + 1 :] if at else []
    return [word for word in later if "=" in word and not word.startswith(("hydra.", "-"))]


def was_resumed(environment: Mapping[str, Any]) -> bool:
    return any(str(word).startswith("resume=") for word in environment.get("command") or [])


def epochs_of(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, each with the numbers that it has; those that are broken left out."""
    try:
        lines = _read(folder, "metrics.csv").splitlines()
        rows = [_numbers(row) for row in csv.DictReader(lines)]
    except (OSError, ValueError, csv.Error):
        return []
    return [row for row in rows if "epoch" in row]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """What of a row or of a summary is a finite number."""
    numbers = {}
    for name, found in row.items():
        try:
            value = float(found)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            numbers[str(name)] = value
    return numbers


def pictures_of(folder: Path) -> list[Path]:
    """figures/*.png, by name; links that lead out of the run folder are left out."""
    found = (folder / "figures").glob("[!.]*.png")
    return sorted(path for path in found if is_own_file(folder, path))
