"""The names of a run's checkpoints, and the checkpoint for a path. Nothing heavy is imported."""

import os
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from glimpse.errors import UserError
from glimpse.files import require_inside
from glimpse.records import FINISHED
from glimpse.runs.folder import RUNNING, read_run
from glimpse.runs.settings import to_resume

CHECKPOINTS = "checkpoints"  # the folder in a run folder
BEST, LAST = "best.ckpt", "last.ckpt"
DEPTH = 4  # of the jobs of a sweep, below the folder that contains outputs/
MOST_FOLDERS = 5_000  # to look at for a suggestion


def checkpoints_of(run: Path) -> list[Path]:
    """The checkpoints in a run folder, in no order. Hidden files, which are being written, are not."""
    return list((run / CHECKPOINTS).glob("[!.]*.ckpt"))


def find_checkpoint(path: Path) -> Path:
    """The checkpoint for a path, which may be a run folder or the checkpoint itself.

    Raises:
        UserError: there is no checkpoint.
    """
    if path.is_file():
        if not zipfile.is_zipfile(path):
            raise UserError(
                f"{path} is not a checkpoint, or it is damaged: type a run folder, or a checkpoint in one"
            )
        return path
    if not path.is_dir():
        raise UserError(f"{path}: there is no such run folder or checkpoint{_such_as(path.parent)}")
    for name in (BEST, LAST):
        checkpoint = path / CHECKPOINTS / name
        require_inside(path, checkpoint)
        if checkpoint.is_file():
            return checkpoint
    if path.name == CHECKPOINTS and (path / BEST).is_file():
        hint = f": type the run folder, {path.parent}"
    elif (path / ".hydra").is_dir():
        hint = f": {_why_none(path)}"
    else:
        hint = _such_as(path) or ": expected a run folder, such as outputs/<data>-<model>/<time>"
    raise UserError(f"{path} contains no {CHECKPOINTS}/{BEST} or {LAST}{hint}")


def _why_none(run: Path) -> str:
    """Why a run has no checkpoint."""
    found = read_run(run)
    if found.status == RUNNING:
        return "the run has not saved a checkpoint yet"
    if not found.is_training:
        return f"the run has task={found.settings['task']}, which saves none: type another run"
    if found.status == FINISHED:
        return "the run is finished, but they were removed or not copied: copy them, or type another run"
    problem = f" ({found.problem})" if found.problem else ""
    return (
        f"the run is {found.status}{problem} and saved none: type another run, or first train this one with "
        f"{to_resume(run)}"
    )


def newest_run(folder: Path) -> Path | None:
    """The run in or below a folder whose last checkpoint is the newest; None if there is none."""
    seen = islice(_folders(folder, DEPTH), MOST_FOLDERS)
    last = [file for one in seen if (file := one / CHECKPOINTS / LAST).is_file()]
    newest = max(last, key=lambda file: file.stat().st_mtime, default=None)
    return newest.parents[1] if newest else None


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """A folder and the folders below it, without hidden folders, links and folders inside runs."""
    yield folder
    if depth == 0 or (folder / CHECKPOINTS).is_dir():
        return
    try:
        entries = [one for one in os.scandir(folder) if one.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for one in entries:
        if not one.name.startswith("."):
            yield from _folders(Path(one.path), depth - 1)


def _such_as(folder: Path) -> str:
    """A run folder to type in place of the folder that contains it; empty if there is none."""
    found = newest_run(folder)
    return f": type a run folder, such as {found}" if found else ""
