"""Checkpoints: `best.ckpt` by the run's monitor (val/acc by default), and `last.ckpt` every epoch.

With `checkpoints.top_k=3`, the three best stay as `epoch-<epoch>_step-<step>.ckpt` too. Ties go to
the lower val/loss, then to the earlier epoch.

This file replaces Lightning's ModelCheckpoint. With `save_last` and one best checkpoint, that class
writes `last` only together with a new best, and its atomic save is not atomic across file systems.
Checkpoints contain no code and load with `weights_only=True`.
"""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from glimpse.callbacks.epoch_record import logged, of_this_epoch
from glimpse.callbacks.time_left import steps_of_an_epoch
from glimpse.checkpoint_file import is_intact
from glimpse.classifier import ImageClassifier
from glimpse.console import console
from glimpse.data.module import data_of
from glimpse.errors import UserError
from glimpse.files import is_own_file, replacing
from glimpse.found_checkpoint import BEST, CHECKPOINTS, LAST, checkpoints_of
from glimpse.lightning_compat import IS_FIRST_PROCESS, ends_epoch, is_dry
from glimpse.monitor import Monitor, monitor_of
from glimpse.saved import read_checkpoint

Rank = tuple[float, float]  # of `Monitor.rank`; the highest is best

KEPT = re.compile(r"epoch-\d+_step-\d+\.ckpt")  # matches the names of the `top_k` checkpoints


class Checkpoints(Checkpoint):
    """Keep the best and the last state of a run in its folder.

    Args:
        folder: The run's `checkpoints/`.
        monitor: The metric that chooses the best; None: val/acc.
        top_k: The number of best checkpoints to keep.
    """

    def __init__(self, folder: Path, monitor: Monitor | None = None, *, top_k: int = 1) -> None:
        self.folder = folder
        self.best = folder / BEST
        self.last = folder / LAST
        self.monitor = monitor or monitor_of({})
        self.top_k = top_k
        self.best_epoch: int | None = None  # counts from 1
        self.best_step: int | None = None  # None also if the best comes from before a resume
        self.best_metrics: dict[str, float] = {}  # of the validation set
        self.best_value: float | None = None  # of the monitor
        self.best_recall: list[float | None] | None = None  # by class, on the validation set
        self.has_lost_best = False  # whether `best.ckpt` could not be read when it was needed
        self.saved_at = time.monotonic()  # when `last.ckpt` was saved
        self._validated_at = 0  # the step of the last validation, or that of the start
        self._awaits_epoch_end = False  # whether the last validation has not been ranked yet
        self._best_is_current = False  # whether `best.ckpt` contains the current state
        self._best_rank: Rank | None = None
        self._kept: dict[str, Rank] = {}  # of `top_k`: file name and rank, the best first

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated_at = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save `best.ckpt` if this validation is the best so far.

        After an epoch's last validation, this waits for the end of the epoch, so that a run resumed
        from that checkpoint has nothing of the epoch left to do.
        """
        if trainer.sanity_checking:
            return
        self._validated_at = trainer.global_step
        if self.monitor.of_training:
            return
        if ends_epoch(trainer):
            self._awaits_epoch_end = True
        else:
            self._consider(trainer, pl_module, logged(trainer))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save `last.ckpt`. Lightning calls this hook at the very end of an epoch."""
        assert isinstance(pl_module, ImageClassifier)
        if self.monitor.of_training:
            found = of_this_epoch(trainer, pl_module)
            self._best_is_current = self._consider(trainer, pl_module, found)
        elif self._awaits_epoch_end:
            self._best_is_current = self._consider(trainer, pl_module, logged(trainer))
        self._awaits_epoch_end = False
        self.save_last(trainer)
        self._best_is_current = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so if no validation has seen the last weights: they cannot become the best."""
        is_validated = self._validated_at == trainer.global_step
        if is_validated or not trainer.enable_validation or is_dry(trainer):
            return
        every = trainer.check_val_every_n_epoch
        steps = steps_of_an_epoch(trainer) * (every or 1)
        settings = []
        if trainer.val_check_interval != 1.0:
            settings.append("trainer.val_check_interval=1.0")
        if trainer.global_step == trainer.max_steps and trainer.max_steps % steps:
            settings.append(f"trainer.max_steps={-(-trainer.max_steps // steps) * steps}")
        elif every != 1:
            settings.append("trainer.check_val_every_n_epoch=1")
        remedy = f": type {' '.join(settings)}" if settings else ""
        console.print(f"the last weights were not validated{remedy}")

    def _consider(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, found: dict[str, float]
    ) -> bool:
        """Save the state if it is among the best. Returns whether it is in `best.ckpt`."""
        data = data_of(trainer)
        rank = self.monitor.rank(found)
        if rank is None or data.batches.training_size is not None:
            return False  # while training on small images, no checkpoint counts as the best
        is_best = self._best_rank is None or rank > self._best_rank
        if is_best:
            assert isinstance(pl_module, ImageClassifier)
            self._best_rank = rank
            self.best_value = found[self.monitor.name]
            self.best_metrics = {n: v for n, v in found.items() if n.startswith("val/")}
            self.best_epoch = trainer.current_epoch + 1
            self.best_step = trainer.global_step
            # Without a validation in this epoch, the latest recall is of other weights.
            self.best_recall = pl_module.counts.recall.get("val") if "val/acc" in found else None
        name = f"epoch-{trainer.current_epoch + 1}_step-{trainer.global_step}.ckpt"
        dropped = self._enter(name, rank)
        if is_dry(trainer):
            return False
        if is_best:
            trainer.save_checkpoint(self.best)
        if name in self._kept:
            trainer.save_checkpoint(self.folder / name)
        if IS_FIRST_PROCESS:
            for name in dropped:
                (self.folder / name).unlink(missing_ok=True)
        return is_best

    def _enter(self, name: str, rank: Rank) -> list[str]:
        """Rank a checkpoint among the `top_k`. Returns the names of those that drop out."""
        if self.top_k == 1:
            return []
        ranked = sorted((self._kept | {name: rank}).items(), key=lambda item: item[1], reverse=True)
        self._kept = dict(ranked[: self.top_k])
        return [dropped for dropped, _ in ranked[self.top_k :]]

    def save_last(self, trainer: pl.Trainer) -> None:
        """Save the current state as `last.ckpt`. All processes must call this together."""
        if self._best_is_current:
            # Not flushed: if the copy is lost, a run resumes from `best.ckpt` on the disk.
            if IS_FIRST_PROCESS:
                self._copy_to_last(self.best, flush=False)
        elif not is_dry(trainer):
            trainer.save_checkpoint(self.last)
        self.saved_at = time.monotonic()

    def read_best(self) -> dict[str, Any] | None:
        """Read `best.ckpt`; None if no epoch was the best, or, with a message, if it is damaged."""
        if self.best_epoch is None:
            return None
        try:
            if not is_own_file(self.folder, self.best):
                raise UserError(f"{self.best} is missing, or not a file in this folder")
            return read_checkpoint(self.best)
        except UserError as error:
            console.print(f"{error}; measuring the last weights instead")
            self._forget_best()
            return None

    def _forget_best(self) -> None:
        """Forget a best state that cannot be read, so that no number of a result is of it."""
        self.has_lost_best = True
        self.best_epoch = self.best_value = self.best_recall = self._best_rank = None
        self.best_metrics = {}

    def begin_from(self, path: Path) -> None:
        """Copy the checkpoint that a run resumes from to `last.ckpt`, in place of a damaged one."""
        if path.name != self.last.name:
            self._copy_to_last(path, flush=True)

    def _copy_to_last(self, path: Path, *, flush: bool) -> None:
        with replacing(self.last, flush=flush) as partial:
            shutil.copyfile(path, partial)

    def state_dict(self) -> dict[str, Any]:
        """The best results so far. A resumed run compares its own results with them."""
        return {
            "monitor": [self.monitor.name, self.monitor.mode],
            "best_epoch": self.best_epoch,
            "best_metrics": self.best_metrics,
            "best_value": self.best_value,
            "best_recall": self.best_recall,
            "kept": {name: list(rank) for name, rank in self._kept.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best results so far.

        If the monitor has changed, the best checkpoint is ranked again by its own validation
        metrics. If they lack the new metric, the next validation becomes the best, and a note
        says so.
        """
        if state_dict["monitor"] != [self.monitor.name, self.monitor.mode]:
            state_dict = state_dict | {"kept": {}, "best_value": None}
        self.best_epoch = state_dict["best_epoch"]
        self.best_metrics = state_dict["best_metrics"]
        self.best_recall = state_dict["best_recall"]
        kept = state_dict["kept"].items()
        # A stranger's checkpoint must not name other files, which would be removed.
        self._kept = {name: (a, b) for name, (a, b) in kept if KEPT.fullmatch(name)}
        judged = dict(self.best_metrics)
        if state_dict["best_value"] is not None:
            judged[self.monitor.name] = state_dict["best_value"]
        self._best_rank = self.monitor.rank(judged) if judged else None
        self.best_value = judged.get(self.monitor.name)
        if self.best_epoch is None:
            return
        if not (is_own_file(self.folder, self.best) and is_intact(self.best)):
            console.print(
                f"{self.best}, of epoch {self.best_epoch}, is missing or damaged: the next validation "
                "becomes the best, or else the last weights are measured"
            )
            self._forget_best()
        elif self.best_value is None:
            console.print(
                f"best.ckpt is from epoch {self.best_epoch}, which has no {self.monitor.name}: the next "
                "validation replaces it"
            )


def to_resume_from(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """The intact checkpoint in a run folder with the most steps, and its content.

    An intact `last.ckpt` has the most steps. The times of the files are ignored, because the clock
    may have been set back. Returns None if there is no checkpoint yet.

    Raises:
        UserError: no checkpoint can be used.
    """
    folder = run / CHECKPOINTS
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: remove it to start from the beginning")
    paths = [path for path in checkpoints_of(run) if is_own_file(folder, path)]
    paths.sort(key=lambda path: (path.name != LAST, path.name))
    broken: list[str] = []
    why = ""
    newest: tuple[Path, dict[str, Any]] | None = None
    for path in paths:
        try:
            saved = read_checkpoint(path)
        except UserError as error:
            broken.append(path.name)
            why = why or str(error)
            continue
        if newest is None or saved["global_step"] > newest[1]["global_step"]:
            newest = path, saved
        if path.name == LAST:
            break
    if newest:
        if broken:
            console.print(f"{why}; resuming from {newest[0].name}")
        return newest
    if not broken:
        console.print("there is no checkpoint yet; starting from the beginning")
        return None
    raise UserError(
        f"resume: no checkpoint in {folder} can be used ({', '.join(broken)}): {why}; start a new run"
    )
