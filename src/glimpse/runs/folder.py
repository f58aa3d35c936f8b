"""Read a run folder: how the run ended, its results, epochs and pictures.

settings.py reads the settings of a run.

This reader needs neither torch nor lightning, and it does not open checkpoints. A folder is a run
folder if it contains `.hydra` or `summary.json`. The folder of a sweep, which contains
`multirun.yaml` and the sweep's jobs, is not.
"""

import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from glimpse.command import to_type
from glimpse.errors import UserError
from glimpse.files import is_own_file
from glimpse.folder_lock import is_held
from glimpse.monitor import Monitor, monitor_of, reported_split
from glimpse.records import (
    CHANGED_FROM,
    ENVIRONMENT,
    EXTENDED_FROM,
    FAILED,
    METRICS,
    SUMMARY,
    UnreadableError,
    finite,
    json_or_empty,
    listed,
    mapping,
    read_json,
    read_rows,
)
from glimpse.runs.settings import (
    MAX_EPOCHS,
    THEN,
    as_text,
    environment_of,
    recorded_choices,
    settings_over_time,
)
from glimpse.text import cut

# A run without a summary counts as running if a process holds the lock of its folder. Another
# machine may not see the lock. There, the run counts as running if its training has written
# anything within the last ten minutes, or within three times its longest epoch. Otherwise its
# status is "killed?", with a question mark, because a first epoch may take longer.
QUIET_SECONDS = 600
NUM_QUIET_EPOCHS = 3
FUTURE_SECONDS = 60  # by which another machine's clock may be ahead; later times are not trusted
RUNNING, KILLED, UNREADABLE = "running", "killed?", "unreadable"

LIST_THEM = "type glimpse report outputs to list the runs"

# Limits on what a run adds to a report, so that a stranger's run cannot hide the others.
MOST_METRICS = 100
LONGEST_WORD = 200  # characters of a name or a status
LONGEST_PROBLEM = 1000  # a remedy ends it


@dataclass(frozen=True)
class Run:
    """A run folder and its contents.

    Attributes:
        folder: The run folder.
        status: finished, interrupted, failed; or running, killed?, unreadable.
        summary: The content of summary.json, or the facts that are known without it.
        settings: The composed configuration as it would be typed, `optimizer.lr` → `0.001`; empty
            if it was not recorded.
        problem: One line that says what went wrong; empty if nothing did.
    """

    folder: Path
    status: str
    summary: dict[str, Any]
    settings: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def data(self) -> str:
        return _word(self.summary.get("data") or "?")

    @property
    def model(self) -> str:
        return _word(self.summary.get("model") or "?")

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The metrics of the best checkpoint, with all splits in evaluation mode."""
        found = _numbers(mapping(self.summary.get("metrics")))
        return dict(islice(found.items(), MOST_METRICS))

    @property
    def monitor(self) -> Monitor:
        """The metric that chose the best checkpoint."""
        return _monitor(self.settings, self.summary)

    @cached_property
    def class_recall(self) -> dict[str, float]:
        """The recall of each class on the `reported` split, if the classes differ much in size."""
        return _numbers(mapping(self.summary.get("class_recall")))

    @property
    def measured_images(self) -> dict[str, int]:
        """The number of measured images of each held-out split that was measured in part."""
        found = _numbers(mapping(self.summary.get("measured_images")))
        return {split: int(number) for split, number in found.items()}

    @property
    def seed(self) -> str:
        """Its seed, as "1, then 2" if a resume changed it; its folder if it is unknown."""
        return str(self.settings.get("seed", self.summary.get("seed", self.folder)))

    @property
    def data_id(self) -> str:
        """What identifies the images and labels of its dataset; empty if it is not recorded."""
        return _word(self.summary.get("data_id") or "")

    @property
    def reported(self) -> str:
        """The held-out split that measures the run: "test" if it was measured, otherwise "val"."""
        return reported_split(self.metrics)

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the `reported` split."""
        return self.metrics.get(f"{self.reported}/acc")

    @property
    def is_refused(self) -> bool:
        """Whether the run failed before its training began, such as for a missing folder."""
        has_begun = self.summary.get("attempt") is not None or self.number("epochs") != 0
        return self.status == FAILED and not has_begun

    @property
    def is_training(self) -> bool:
        """Whether the run trained a network, unlike `task=lr_find`; True if it is not recorded."""
        return self.settings.get("task", "fit") == "fit"

    def number(self, name: str) -> float | None:
        """A number from the summary, such as parameters, seconds or majority_acc."""
        return finite(self.summary.get(name))


def find_runs(root: Path) -> list[Run]:
    """Every run in and below `root`, in the order of the folders.

    Raises:
        UserError: there is no such folder, or it contains no run.
    """
    if not root.is_dir():
        found = "it is a file" if root.exists() else "there is no such folder"
        raise UserError(
            f"{root}: {found}, expected a folder of runs: type {to_type()} to make one in outputs"
        )
    runs = [read_run(folder) for folder in _run_folders(root)]
    if not runs:
        raise UserError(f"{root}: there are no runs in this folder; type {to_type()} to make one")
    return runs


def one_run(folder: Path) -> Run:
    """Read the run in a folder.

    Raises:
        UserError: it is not a run folder.
    """
    if not folder.is_dir():
        found = "it is a file" if folder.exists() else "there is no such folder"
        raise UserError(f"{folder}: {found}, expected a run folder: {LIST_THEM}")
    if not is_run(folder):
        raise UserError(
            f"{folder}: not a run folder (it has neither .hydra nor {SUMMARY}): {LIST_THEM}"
        )
    return read_run(folder)


def is_run(folder: Path) -> bool:
    return os.path.isdir(folder / ".hydra") or os.path.lexists(folder / SUMMARY)


def _run_folders(root: Path) -> Iterator[Path]:
    """The run folders in and below `root`, and the folders that cannot be read."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        names: list[str] = []
        if not is_run(folder) and not _no_entry(folder):
            with suppress(OSError), os.scandir(folder) as entries:
                names = [
                    e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != "."
                ]
        else:
            yield folder
        waiting += [folder / name for name in sorted(names, reverse=True)]


def _no_entry(folder: Path) -> str:
    """Why a folder cannot be read; empty if it can."""
    try:
        with os.scandir(folder):
            return "" if os.access(folder, os.X_OK) else "permission denied"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def read_run(folder: Path) -> Run:
    """Read a run folder, whatever its state."""
    if reason := _no_entry(folder):
        return Run(folder, UNREADABLE, {}, {}, f"the folder cannot be read: {reason}")
    environment = environment_of(folder)
    settings = settings_over_time(folder, environment)
    if not os.path.lexists(folder / SUMMARY):
        return _without_summary(folder, settings, environment)
    try:
        summary = read_json(folder, SUMMARY)
    except UnreadableError as error:
        problem = f"{SUMMARY} cannot be read: {error.cause}"
        return Run(folder, UNREADABLE, _choices(folder), settings, _word(problem, LONGEST_PROBLEM))
    if _was_resumed_since(summary, environment):
        return _without_summary(folder, settings, environment)
    status = summary.get("status")
    if not isinstance(status, str) or not status.isprintable() or len(status) > LONGEST_WORD:
        problem = f"{SUMMARY} cannot be read: it states no status"
        return Run(folder, UNREADABLE, _choices(folder), settings, problem)
    problem = _word(summary.get("error", ""), LONGEST_PROBLEM)
    return Run(folder, status, summary, settings | _epochs_over_time(summary, settings), problem)


def _epochs_over_time(summary: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, str]:
    """Its trainer.max_epochs, as "2, then 4", if a resume changed it; otherwise nothing."""
    before = listed(summary.get(CHANGED_FROM)) or listed(summary.get(EXTENDED_FROM))
    found = [str(int(n)) for one in before[:MOST_METRICS] if (n := finite(one)) is not None]
    if not found or MAX_EPOCHS not in settings:
        return {}
    return {MAX_EPOCHS: THEN.join([*found, settings[MAX_EPOCHS]])}


def _word(value: Any, most: int = LONGEST_WORD) -> str:
    """A name or a message from a record as text of at most this many characters."""
    text = value if isinstance(value, str) else as_text(value)
    return cut(text, most)


def _was_resumed_since(summary: Mapping[str, Any], environment: Mapping[str, Any]) -> bool:
    """Whether environment.json, written at the start of an attempt, is newer than summary.json."""
    ended, begun = summary.get("attempt"), environment.get("attempt")
    return isinstance(ended, str) and isinstance(begun, str) and ended != begun


def _without_summary(folder: Path, settings: dict[str, str], environment: Mapping[str, Any]) -> Run:
    rows = epochs_of(folder)
    problem = _why_not_running(folder, rows, environment)
    ranked = [(rank, row) for row in rows if (rank := _monitor(settings).rank(row)) is not None]
    best = max(ranked, key=lambda pair: pair[0], default=(None, {}))[1]
    summary = _choices(folder) | {
        "seed": settings.get("seed"),
        "epochs": rows[-1]["epoch"] if rows else 0,
        # Leave out the training split: an epoch's row holds its running average while the weights
        # change, not a measurement of the final weights.
        "metrics": {name: value for name, value in best.items() if name.startswith("val/")},
    }
    return Run(folder, KILLED if problem else RUNNING, summary, settings, problem)


def _why_not_running(
    folder: Path, rows: list[dict[str, float]], environment: Mapping[str, Any]
) -> str:
    """Why a run that has not recorded its end counts as killed; empty if it is running."""
    held = is_held(folder)
    if held:
        return ""
    if held is False and environment.get("host", platform.node()) == platform.node():
        return "its end is not recorded, and no process is working on it"
    quiet = time.time() - _last_written(folder)
    if quiet < -FUTURE_SECONDS:
        return "its end is not recorded, and its files are dated in the future"
    longest = max((row.get("seconds", 0.0) for row in rows), default=0.0)
    if quiet < max(QUIET_SECONDS, NUM_QUIET_EPOCHS * longest):
        return ""
    return f"its end is not recorded, and nothing was written for {_ago(quiet)}"


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
    written = (".hydra/*", ENVIRONMENT, METRICS, "checkpoints/*", "tensorboard/*")
    found = 0.0
    for pattern in written:
        for path in folder.glob(pattern):
            with suppress(OSError):  # it was replaced meanwhile, or is a broken link
                found = max(found, path.stat().st_mtime)
    return found


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def _choices(folder: Path) -> dict[str, Any]:
    """The chosen `data` and `model` of a run without a summary."""
    found = recorded_choices(folder)
    return {group: found[group] for group in ("data", "model") if group in found}


def summary_of(folder: Path) -> dict[str, Any]:
    """The content of summary.json; empty if it cannot be read."""
    return json_or_empty(folder, SUMMARY)


def epochs_of(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv with the numbers that they contain, without broken rows."""
    try:
        _, rows = read_rows(folder, METRICS)
    except UnreadableError:
        return []
    return [numbers for row in rows if "epoch" in (numbers := _numbers(row))]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The entries of a row or a summary that are finite numbers."""
    return {str(name): value for name, cell in row.items() if (value := finite(cell)) is not None}


def pictures_of(folder: Path) -> list[Path]:
    """The run's figures/*.png, by name, without links that lead out of the run folder."""
    try:
        found = sorted((folder / "figures").glob("[!.]*.png"))
    except OSError:  # the folder cannot be read
        return []
    return [path for path in found if is_own_file(folder, path)]
