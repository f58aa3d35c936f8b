"""Read a run folder: how the run ended, its settings, epochs and pictures.

This reader needs neither torch nor lightning, and it does not open checkpoints. A folder is a run
folder if it contains `.hydra` or `summary.json`. The folder of a sweep, which contains
`multirun.yaml` and the sweep's jobs, is not.
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
from glimpse.monitor import Monitor, monitor_of

# A run without a summary counts as running if its training has written anything within the last ten
# minutes, or within three times its longest epoch. Otherwise its status is "killed?", with a
# question mark, because a first epoch may take longer than that.
QUIET_SECONDS = 600
NUM_QUIET_EPOCHS = 3
RUNNING, KILLED, UNREADABLE = "running", "killed?", "unreadable"
FINISHED, FAILED = "finished", "failed"  # two of the values in summary.json

# environment.json is written when a run starts or resumes, and summary.json when it ends. If
# environment.json is newer by more than this, the run has been resumed. A smaller difference can
# come from copying the folder.
RESUMED_SECONDS = 5

# Settings that say where a run is stored and how it was started, not what it computes.
PLACES = (
    "name", "data_dir", "output_dir", "resume", "check",
    "sweep.plan", "sweep.retry_failed", "sweep.fail_fast",
)  # fmt: skip

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, if available


@dataclass(frozen=True)
class Run:
    """A run folder and its contents.

    Attributes:
        folder: The run folder.
        status: finished, interrupted, failed; or running, killed?, unreadable.
        summary: The content of summary.json, or what is known without it.
        settings: The composed configuration as it would be typed, `optimizer.lr` → `0.001`; empty
            if it was not recorded.
        problem: One line on what went wrong, if anything did.
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
        """The metrics of the best checkpoint, with all splits in evaluation mode."""
        found = self.summary.get("metrics")
        if not isinstance(found, dict):
            return {}
        return _numbers(found)

    @property
    def monitor(self) -> Monitor:
        """The metric that chose the best checkpoint."""
        return _monitor(self.settings, self.summary)

    @property
    def class_recall(self) -> dict[str, float]:
        """The recall of each class on the `reported` split, if the classes differ much in size."""
        found = self.summary.get("class_recall")
        return _numbers(found) if isinstance(found, dict) else {}

    @property
    def reported(self) -> str:
        """The held-out split that measures the run: "test" if it was measured, otherwise "val"."""
        return "test" if "test/acc" in self.metrics else "val"

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the `reported` split."""
        return self.metrics.get(f"{self.reported}/acc")

    def number(self, name: str) -> float | None:
        """A number from the summary, such as parameters, seconds or majority_acc."""
        return _numbers({name: self.summary.get(name)}).get(name)


def find_runs(root: Path) -> list[Run]:
    """Every run in and below `root`, in the order of the folders.

    Raises:
        UserError: there is no such folder, or it contains no run.
    """
    if not root.is_dir():
        raise UserError(f"{root}: there is no such folder")
    runs = [read_run(folder) for folder in _run_folders(root)]
    if not runs:
        raise UserError(
            f"{root}: there are no runs in this folder; type python train.py to make one"
        )
    return runs


def one_run(folder: Path) -> Run:
    """Read the run in a folder.

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
    """Read a run folder, whatever its state."""
    environment = environment_of(folder)
    settings = settings_of(folder, environment)
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
    """The text of a file in a run folder.

    Raises:
        OSError: the file cannot be read, or it is outside the folder.
    """
    path = folder / name
    if path.exists() and not is_own_file(folder, path):
        raise OSError(f"{name} is not a file in this folder")
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
    ranked = [(rank, row) for row in rows if (rank := _monitor(settings).rank(row)) is not None]
    best = max(ranked, key=lambda pair: pair[0], default=(None, {}))[1]
    summary = _choices(folder) | {
        "seed": settings.get("seed"),
        "epochs": int(rows[-1]["epoch"]) if rows else 0,
        # Leave out the training split: an epoch's row holds its running average while the weights
        # change, not a measurement of the final weights.
        "metrics": {name: value for name, value in best.items() if name.startswith("val/")},
    }
    problem = "" if is_running else f"no summary.json, and nothing written for {_ago(quiet)}"
    return Run(folder, RUNNING if is_running else KILLED, summary, settings, problem)


def _monitor(*records: Mapping[str, Any]) -> Monitor:
    """The monitor that the settings or the summary of a run state; the default one if none does."""
    found: dict[str, str] = {}
    for record in records:
        for key in ("monitor", "mode"):
            value = record.get(key)
            if isinstance(value, str) and value != "null":
                found[key] = value
    if found.get("mode") not in ("min", "max"):
        found.pop("mode", None)
    return monitor_of(found)


def _last_written(folder: Path) -> float:
    """When training last wrote a file. Reports and pictures do not count."""
    written = (".hydra/*", "environment.json", "metrics.csv", "checkpoints/*", "tensorboard/*")
    paths = [path for pattern in written for path in folder.glob(pattern)]
    return max((path.stat().st_mtime for path in paths), default=0.0)


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _choices(folder: Path) -> dict[str, Any]:
    """The chosen `data` and `model` of a run without a summary."""
    found = choices_of(folder)
    return {group: found[group] for group in ("data", "model") if group in found}


def choices_of(folder: Path) -> dict[str, str]:
    """The chosen file of each group; empty if it was not recorded."""
    try:
        recorded = _yaml(_read(folder, ".hydra/hydra.yaml"))
        choices = recorded["hydra"]["runtime"]["choices"]
        return {str(group): str(choice) for group, choice in choices.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return {}


def settings_of(folder: Path, environment: dict[str, Any] | None = None) -> dict[str, str]:
    """The recorded configuration, updated with what was typed when the run was resumed.

    Args:
        folder: The run folder.
        environment: The content of its environment.json, if it has been read already.

    Returns:
        The settings as `flat_settings` gives them; empty if they cannot be read.
    """
    try:
        settings = flat_settings(_read(folder, ".hydra/config.yaml"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    for override in _typed_at_resume(environment or environment_of(folder)):
        key, _, value = override.partition("=")
        if key in settings:
            settings[key] = as_text(_yaml(value))
    return settings


def flat_settings(text: str) -> dict[str, str]:
    """Flatten a configuration in YAML to dotted keys with values as text.

    Raises:
        ValueError: the text is not a mapping. `yaml.YAMLError`: it is not YAML.
    """
    settings: dict[str, str] = {}
    for block in _blocks(text):
        settings |= _flat_block(block)
    return settings


def _blocks(text: str) -> list[str]:
    """Split YAML into a block per top-level key. Many runs share blocks, which are parsed once."""
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
    """Flatten `{"optimizer": {"lr": 1}}` to `{"optimizer.lr": "1"}`. Skip empty mappings."""
    if not isinstance(node, dict):
        raise ValueError(f"{node}: expected a mapping")
    flat: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = as_text(value)
    return flat


def as_text(value: Any) -> str:
    """A plain value as text, in the notation of JSON; strings as they are."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _yaml(text: str) -> Any:
    return yaml.load(text, YAML_LOADER)


def summary_of(folder: Path) -> dict[str, Any]:
    """The content of summary.json; empty if it cannot be read."""
    return _json_of(folder, "summary.json")


def environment_of(folder: Path) -> dict[str, Any]:
    """The content of environment.json; empty if it cannot be read."""
    return _json_of(folder, "environment.json")


def _json_of(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(_read(folder, name))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def overrides_of(folder: Path) -> list[str]:
    """The overrides of a run: those of its own job in a sweep, and those typed at a resume."""
    try:
        recorded = _yaml(_read(folder, ".hydra/overrides.yaml")) or []
    except (OSError, ValueError, yaml.YAMLError):
        recorded = []
    typed = [*map(str, recorded), *_typed_at_resume(environment_of(folder))]
    return list({override.partition("=")[0]: override for override in typed}.values())


def _typed_at_resume(environment: Mapping[str, Any]) -> list[str]:
    """The overrides typed when the run was resumed.

    `train.py` orders a resumed run's command as: recorded overrides, resume=, Hydra's own settings,
    new overrides.
    """
    command = [str(word) for word in environment.get("command") or []]
    at = [i for i, word in enumerate(command) if word.startswith("resume=")]
    later = command[at[-1] + 1 :] if at else []
    return [word for word in later if "=" in word and not word.startswith(("hydra.", "-"))]


def was_resumed(environment: Mapping[str, Any]) -> bool:
    return any(str(word).startswith("resume=") for word in environment.get("command") or [])


def epochs_of(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv with the numbers that they contain, without broken rows."""
    try:
        lines = _read(folder, "metrics.csv").splitlines()
        rows = [_numbers(row) for row in csv.DictReader(lines)]
    except (OSError, ValueError, csv.Error):
        return []
    return [row for row in rows if "epoch" in row]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The entries of a row or a summary that are finite numbers."""
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
    """The run's figures/*.png, by name, without links that lead out of the run folder."""
    found = (folder / "figures").glob("[!.]*.png")
    return sorted(path for path in found if is_own_file(folder, path))
