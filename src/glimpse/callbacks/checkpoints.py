"""Checkpoints: `best.ckpt` by val/acc (ties by val/loss), and `last.ckpt` after every epoch.

Lightning's ModelCheckpoint with one best and `save_last` writes `last` only together with a new
best, and its atomic save is not atomic across file systems. Therefore this file replaces it.
Checkpoints contain no code and load with `weights_only=True`.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from glimpse.callbacks.epoch_record import logged
from glimpse.errors import UserError
from glimpse.files import is_own_file, replacing, require_inside


class AtomicCheckpointIO(CheckpointIO):
    """Write to a temporary name in the same folder, then rename. Read without executing code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(final) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch raises it when the disk is full
            raise UserError(f"cannot write {final}: {error}") from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load plain data only, whatever `weights_only` says."""
        checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        assert isinstance(checkpoint, dict)
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Keep the best and the last state of a run in its folder.

    Args:
        folder: The run's `checkpoints/`.
    """

    def __init__(self, folder: Path) -> None:
        self.best = folder / "best.ckpt"
        self.last = folder / "last.ckpt"
        self.best_epoch: int | None = None  # counts from 1
        self.best_metrics: dict[str, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save `best.ckpt` if this validation is the best so far."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or data.batches.training_size is not None:
            return  # while training on small images, no checkpoint counts as the best
        found = {name: v for name, v in logged(trainer).items() if name.startswith("val/")}
        if self.best_metrics and _rank(found) <= _rank(self.best_metrics):
            return
        self.best_metrics = found
        self.best_epoch = trainer.current_epoch + 1
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.best)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save `last.ckpt`. Lightning calls this hook at the very end of an epoch."""
        self.save_last(trainer)

    def save_last(self, trainer: pl.Trainer) -> None:
        """Save the current state as `last.ckpt`. All processes must call this together."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.last)

    def state_dict(self) -> dict[str, Any]:
        """The best result so far, which a resumed run compares with."""
        return {"best_epoch": self.best_epoch, "best_metrics": self.best_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_epoch = state_dict["best_epoch"]
        self.best_metrics = state_dict["best_metrics"]


def _rank(metrics: dict[str, float]) -> tuple[float, float]:
    return metrics["val/acc"], -metrics["val/loss"]


def is_intact(path: Path) -> bool:
    """Whether a checkpoint is undamaged, that is, the checksum of every record is right."""
    try:
        with zipfile.ZipFile(path) as zipped:
            return zipped.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def find_checkpoint(path: Path) -> Path:
    """The checkpoint for a path, which may be a run folder or the checkpoint itself.

    Raises:
        UserError: there is no checkpoint.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: there is no such run folder or checkpoint")
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = path / "checkpoints" / name
        require_inside(path, checkpoint)
        if checkpoint.is_file():
            return checkpoint
    hint = "expected a run folder, such as outputs/<data>-<model>/<time>"
    if (path / ".hydra").is_dir():
        hint = "the run has not saved a checkpoint yet"
    raise UserError(f"{path} contains no checkpoints/best.ckpt or last.ckpt: {hint}")


def to_resume_from(folder: Path) -> Path | None:
    """The newest intact checkpoint in a run's `checkpoints/`; None if there is no checkpoint yet.

    Raises:
        UserError: every checkpoint is damaged.
    """
    paths = [path for path in folder.glob("[!.]*.ckpt") if is_own_file(folder, path)]
    paths.sort(key=lambda p: p.stat().st_mtime_ns, reverse=True)
    paths.sort(key=lambda p: p.name != "last.ckpt")
    broken: list[str] = []
    for path in paths:
        if is_intact(path):
            if broken:
                print(f"{broken[0]} is damaged; resuming from {path.name}", flush=True)
            return path
        broken.append(path.name)
    if not broken:
        print("there is no checkpoint yet; starting from the beginning", flush=True)
        return None
    raise UserError(
        f"resume: every checkpoint in {folder} is damaged ({', '.join(broken)}); start a new run"
    )
