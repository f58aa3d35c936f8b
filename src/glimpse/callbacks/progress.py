"""Progress: a bar with the time left during an epoch, and one permanent line per epoch.

The bar appears only on a terminal and is redrawn at most five times per second. A file receives the
epochs' lines, and one line per minute during longer epochs. Each batch costs one call to the clock.
"""

import time
from typing import Any

import lightning.pytorch as pl
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.callbacks.epoch_record import EpochRecord, of_this_epoch
from glimpse.callbacks.time_left import TimeLeft
from glimpse.classifier import ImageClassifier
from glimpse.console import console
from glimpse.durations import duration
from glimpse.lightning_compat import LateCallback

REDRAW_SECONDS = 0.2
LINE_SECONDS = 60.0  # between lines when no bar can be drawn


class Progress(LateCallback):
    """Print the progress of training.

    Args:
        checkpoints: The callback that knows whether an epoch was the best.
        record: The callback that has measured the epoch's speed.
        afterwards: What remains of the sweep after this run, as text shown after the time left.
    """

    sees_chunks = True

    def __init__(self, checkpoints: Checkpoints, record: EpochRecord, *, afterwards: str) -> None:
        self.checkpoints = checkpoints
        self.record = record
        self._afterwards = f", then {afterwards}" if afterwards else ""
        self._bar: Bar | None = None
        self._next_draw = 0.0
        self._clock: TimeLeft | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock = None
        if console.is_terminal and not console.quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(f"{{task.fields[left]}} left{self._afterwards}"),
            )
            self._bar = Bar(*columns, console=console, auto_refresh=False, transient=True)
            self._bar.add_task("", total=None, left="?")
            self._bar.start()
        self._wait()

    def _wait(self) -> None:
        interval = LINE_SECONDS if self._bar is None else REDRAW_SECONDS
        self._next_draw = time.perf_counter() + interval

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._clock is None:
            self._clock = TimeLeft(trainer, batch_idx)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if time.perf_counter() < self._next_draw:
            return
        self._wait()
        if self._bar is not None:
            self._draw(trainer, batch_idx + 1)
        elif not trainer.is_last_batch:  # after the last batch, the epoch's own line follows
            console.print(
                f"{_epoch(trainer)}  batch {batch_idx + 1}/{trainer.num_training_batches}  "
                f"{self._time_left(batch_idx + 1)} left"
            )

    def _draw(self, trainer: pl.Trainer, num_batches_done: int) -> None:
        assert self._bar is not None
        self._bar.update(
            self._bar.task_ids[0],
            description=_epoch(trainer),
            total=int(trainer.num_training_batches),
            completed=num_batches_done,
            left=self._time_left(num_batches_done),
        )
        self._bar.refresh()

    def _time_left(self, num_batches_done: int) -> str:
        seconds = self._clock.seconds(num_batches_done) if self._clock else None
        return "?" if seconds is None else duration(seconds)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._clock is not None:
            self._clock.begin_validation()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._clock is not None:
            self._clock.end_validation()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's line."""
        assert isinstance(pl_module, ImageClassifier)
        metrics = of_this_epoch(trainer, pl_module)
        parts = [_epoch(trainer)]
        for split in ("train", "val"):
            if f"{split}/loss" in metrics:
                parts.append(
                    f"{split} loss {metrics[f'{split}/loss']:.4f} acc {metrics[f'{split}/acc']:.4f}"
                )
        for name in pl_module.scoring.names if pl_module.scoring else ():
            if f"val/{name}" in metrics:
                parts.append(f"{name} {metrics[f'val/{name}']:.4f}")
        parts.append(f"lr {metrics.get('lr', 0):.2g}")
        if speed := self.record.rows[-1].get("images_per_second"):  # unknown for a part of an epoch
            parts.append(f"{speed:,.0f} img/s")
        parts.append(f"{self._time_left(int(trainer.num_training_batches))} left")
        best = " *" if self.checkpoints.best_epoch == trainer.current_epoch + 1 else ""
        console.print("  ".join(parts) + best)
        self._wait()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _epoch(trainer: pl.Trainer) -> str:
    total = trainer.max_epochs if (trainer.max_epochs or 0) > 0 else "?"
    return f"epoch {trainer.current_epoch + 1}/{total}"
