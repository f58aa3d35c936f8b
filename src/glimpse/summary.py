"""`summary.json`: the facts and results of a run, and how it ended; written however it ends.

A rejected resume leaves the file unchanged. A resume that fails later keeps the earlier results and
adds its error.
"""

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from glimpse.command import to_type
from glimpse.config.explain import explain
from glimpse.console import console
from glimpse.crash import TRACEBACK, crash
from glimpse.errors import Interrupted, LostProcessError, UserError
from glimpse.files import write_json
from glimpse.found_checkpoint import checkpoints_of
from glimpse.lightning_compat import IS_FIRST_PROCESS
from glimpse.records import (
    CHANGED_FROM,
    ENVIRONMENT,
    EXTENDED_FROM,
    FAILED,
    FINISHED,
    INTERRUPTED,
    PRUNED,
    SUMMARY,
    UnreadableError,
    finite,
    listed,
    mapping,
    read_json,
    read_yaml,
)


class Summary:
    """The facts and results of a run that are known so far; `names` are the chosen `data` and `model`."""

    def __init__(self, folder: Path, config: DictConfig, names: Mapping[str, str]) -> None:
        self.folder = folder
        self.can_be_resumed = config.task == "fit"
        self.is_written = not config.resume and not config.check
        self.before = _read(folder) if config.resume else {}
        self.had_finished = self.before.get("status") == FINISHED
        self.values: dict[str, Any] = {
            "status": FAILED,
            "data": names["data"],
            "model": names["model"],
            "seed": config.seed,
            "epochs": 0,
            "max_epochs": config.trainer.max_epochs,
            "best_epoch": None,
            "parameters": None,
            "seconds": None,
            "images_per_second": None,
            "majority_acc": None,
            "metrics": {},
            "attempt": self.before.get("attempt"),
        }
        if config.resume and checkpoints_of(folder):  # otherwise it begins anew
            before = {"max_epochs": _first_max_epochs(folder)} | self.before
            self.values |= _stages(before, config.trainer.max_epochs)
        self.is_pruned = False
        self._began = time.perf_counter()

    def update(self, **values: Any) -> None:
        """Add values that have become known."""
        self.values |= values

    def accept(self) -> None:
        """Accept the resume. From now on, the run may write to its folder."""
        self.is_written = True

    def begin(self, environment: Mapping[str, Any]) -> None:
        """Write the record of the run's environment.

        This record and the summary name the attempt, so that readers know whether one of them
        belongs to a later resume.
        """
        attempt = {"attempt": secrets.token_hex(4)}
        write_json(self.folder / ENVIRONMENT, {**environment, **attempt})
        self.update(**attempt)

    def prune(self) -> None:
        """Note that a search stopped the run early, because it lagged behind others."""
        self.is_pruned = True

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the best checkpoint."""
        found: dict[str, float] = self.values["metrics"]
        return found

    def end(self, status: str, error: str | None = None) -> None:
        """Write the file, if the run may write to its folder."""
        found = self.values | {"status": status}
        if status != FINISHED and self.before:
            found = _with_former(found, self.before)
        if error is not None:
            found["error"] = error
        before = finite(self.before.get("seconds")) or 0.0
        found["seconds"] = round(before + time.perf_counter() - self._began, 2)
        self.values = found
        if self.is_written and IS_FIRST_PROCESS:
            write_json(self.folder / SUMMARY, found)


@contextmanager
def summarised(config: DictConfig, folder: Path, names: Mapping[str, str]) -> Iterator[Summary]:
    """Yield the summary of the run in the enclosed block, and write it when the block ends.

    Raises:
        CrashError: an unexpected error occurred. Its traceback is in the folder.
    """
    if IS_FIRST_PROCESS:
        folder.mkdir(parents=True, exist_ok=True)
    summary = Summary(folder, config, names)
    try:
        yield summary
    except (Interrupted, LostProcessError) as stop:
        lost = explain(stop) if isinstance(stop, LostProcessError) else None
        _end_anyway(summary, INTERRUPTED, lost)
        if summary.can_be_resumed:
            typed = to_type(f"resume={relative_to_here(folder)}")
            console.print(f"to resume, type: {typed}")
        raise
    except UserError as error:
        _end_anyway(summary, FAILED, explain(error))
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit(0) in a user's own network is not a success
        place = folder if summary.is_written else None  # a rejected resume changes nothing
        crashed = crash(error, place, name=_name_of_traceback())
        _end_anyway(summary, FAILED, explain(crashed))
        raise crashed from error
    summary.end(PRUNED if summary.is_pruned else FINISHED)
    if summary.is_written and IS_FIRST_PROCESS:
        (folder / TRACEBACK).unlink(missing_ok=True)  # an earlier attempt may have left it


def _end_anyway(summary: Summary, status: str, error: str | None) -> None:
    """Write the summary. If that fails, print why, so that the original error is still raised."""
    try:
        summary.end(status, error)
    except UserError as failure:
        console.print(str(failure))


def relative_to_here(path: Path) -> Path:
    """A path relative to the current folder, if it is inside it."""
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it has been deleted meanwhile
        return path
    return path.relative_to(here) if path.is_relative_to(here) else path


def _name_of_traceback() -> str:
    rank = os.environ.get("RANK", "0")
    return TRACEBACK if rank == "0" else f"traceback-{rank}.txt"


def _read(folder: Path) -> dict[str, Any]:
    """The summary of the run's earlier attempts; empty if it cannot be read."""
    if not os.path.lexists(folder / SUMMARY):
        return {}
    try:
        return read_json(folder, SUMMARY)
    except UnreadableError as error:
        console.print(f"{error}; the new summary will not include the run's earlier results")
        return {}


def _first_max_epochs(folder: Path) -> Any:
    """The trainer.max_epochs that a run was started with; a killed run has no summary."""
    try:
        config = mapping(read_yaml(folder, ".hydra/config.yaml"))
    except UnreadableError:
        return None
    return mapping(config.get("trainer")).get("max_epochs")


def _stages(before: Mapping[str, Any], max_epochs: Any) -> dict[str, list[int]]:
    """The earlier numbers of epochs of the run, in order.

    Those of a run that finished each time before it was extended are `EXTENDED_FROM`, and a
    repetition can train in the same stages. If it was stopped in between, all are `CHANGED_FROM`.
    Both differ from a run that had its last number from the start, because most schedules depend on
    the number of epochs.
    """
    extended, changed = ([*listed(before.get(key))] for key in (EXTENDED_FROM, CHANGED_FROM))
    number = before["max_epochs"]
    if isinstance(number, int) and number != max_epochs:
        if before.get("status") == FINISHED and not changed:
            extended.append(number)
        else:
            extended, changed = [], [*(changed or extended), number]
    stages = {EXTENDED_FROM: extended, CHANGED_FROM: changed}
    return {key: epochs for key, epochs in stages.items() if epochs}


def _with_former(found: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Complete an unfinished attempt with the results of earlier attempts.

    The metrics belong to the best checkpoint. They stay valid as long as it has not changed.
    """
    former = before.get("metrics")
    is_same = found["best_epoch"] in (None, before.get("best_epoch"))
    if is_same and isinstance(former, dict):
        found = found | {"metrics": former | found["metrics"]}
    else:
        before = {key: value for key, value in before.items() if key != "majority_acc"}
    return {key: value or before.get(key, value) for key, value in found.items()}
