"""Progress: a bar with the time left during an epoch, and one permanent line per epoch.

A validation within an epoch has a line too. The bar also shows how far a validation and the final
measurements are. It appears only on a terminal and is redrawn at most five times per second. A file
receives the lines, and one more per minute during longer epochs and evaluations. Each batch of a
training costs one call to the clock. Evaluations of less than a second cost nothing.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.callbacks.epoch_record import EpochRecord, of_this_epoch
from glimpse.callbacks.time_left import TimeLeft
from glimpse.classifier import ImageClassifier
from glimpse.console import console
from glimpse.data.module import data_of
from glimpse.lightning_compat import LateCallback, ends_epoch, next_batch, skip_hook
from glimpse.progress_bar import LINE_SECONDS
from glimpse.text import decimals, duration

REDRAW_SECONDS = 0.2
SHORT_PASS = 1.0  # seconds of an evaluation that shows nothing


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
        self._next_draw = math.inf
        self._clock: TimeLeft | None = None
        self._num_batches = 0  # of the current evaluation
        self._evaluation_begun = 0.0
        self._pace: float | None = None  # seconds per batch of the last validation

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock = None
        if self._has_terminal:
            self._open()
        self._wait()

    @property
    def _has_terminal(self) -> bool:
        return console.is_terminal and not console.quiet

    def _open(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{{task.fields[left]}} left{self._afterwards}"),
        )
        self._bar = Bar(*columns, console=console, auto_refresh=False, transient=True)
        self._bar.add_task("", total=None, left="?")
        self._bar.start()

    def _wait(self) -> None:
        interval = REDRAW_SECONDS if self._has_terminal else LINE_SECONDS
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
            total, left = int(trainer.num_training_batches), self._time_left(batch_idx + 1)
            self._draw(_epoch(trainer), batch_idx + 1, total, left)
        elif not trainer.is_last_batch:  # after the last batch, the epoch's own line follows
            console.print(
                f"{_epoch(trainer)}  batch {batch_idx + 1}/{trainer.num_training_batches}  "
                f"{self._time_left(batch_idx + 1)} left"
            )

    def _draw(self, what: str, num_done: int, total: int, left: str) -> None:
        if self._bar is None:
            self._open()
        assert self._bar is not None
        [task] = self._bar.task_ids
        self._bar.update(task, description=what, total=total, completed=num_done, left=left)
        self._bar.refresh()

    def _time_left(self, num_batches_done: int) -> str:
        seconds = self._clock.seconds(num_batches_done) if self._clock else None
        return "?" if seconds is None else duration(seconds)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._clock is not None:
            self._clock.begin_validation()
        self._begin_evaluation("on_validation_batch_end", trainer.num_val_batches)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            self._show_evaluation(f"{_epoch(trainer)}  validating", batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line of a validation within an epoch."""
        if self._clock is not None:
            self._clock.end_validation()
        if trainer.sanity_checking:
            return
        self._pace = (time.perf_counter() - self._evaluation_begun) / max(1, self._num_batches)
        if not ends_epoch(trainer):
            assert isinstance(pl_module, ImageClassifier)
            self._print_line(
                trainer,
                f"step {trainer.global_step}",
                *_scores("val", of_this_epoch(trainer, pl_module), pl_module),
                f"{self._time_left(next_batch(trainer))} left",
            )

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin_evaluation("on_test_batch_end", trainer.num_test_batches)
        self._wait()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        split = data_of(trainer).batches.scored_split
        self._show_evaluation(f"measuring {split}", batch_idx + 1)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def _begin_evaluation(self, hook: str, num_batches: Sequence[float]) -> None:
        """Follow an evaluation by a hook, unless it will be too short for anybody to see.

        On small networks, Lightning's call of the hook would take a noticeable part of the time.
        """
        self._num_batches = int(sum(num_batches))
        self._evaluation_begun = time.perf_counter()
        is_short = self._pace is not None and self._pace * self._num_batches < SHORT_PASS
        skip_hook(self, hook, skipped=is_short)

    def _show_evaluation(self, what: str, num_done: int) -> None:
        now = time.perf_counter()
        if now < self._next_draw:
            return
        self._wait()
        seconds = now - self._evaluation_begun
        left = duration(seconds * (self._num_batches - num_done) / num_done)  # of this pass
        if self._has_terminal:
            self._draw(what, num_done, self._num_batches, left)
        else:
            console.print(f"{what}  batch {num_done}/{self._num_batches}  {left} left")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's line."""
        assert isinstance(pl_module, ImageClassifier)
        metrics = of_this_epoch(trainer, pl_module)
        parts = [text for split in ("train", "val") for text in _scores(split, metrics, pl_module)]
        parts.append(f"lr {metrics.get('lr', 0):.2g}")
        if speed := self.record.rows[-1].get("images_per_second"):  # unknown for a part of an epoch
            parts.append(f"{speed:,.0f} img/s")
        parts.append(f"{self._time_left(int(trainer.num_training_batches))} left")
        self._print_line(trainer, *parts)

    def _print_line(self, trainer: pl.Trainer, *parts: str) -> None:
        """Print a permanent line, with a star for a new best."""
        best = " *" if self.checkpoints.best_step == trainer.global_step else ""
        console.print("  ".join([_epoch(trainer), *parts]) + best)
        self._wait()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _epoch(trainer: pl.Trainer) -> str:
    total = trainer.max_epochs if (trainer.max_epochs or 0) > 0 else "?"
    return f"epoch {trainer.current_epoch + 1}/{total}"


def _scores(split: str, metrics: Mapping[str, float], classifier: ImageClassifier) -> list[str]:
    """Loss, accuracy and further metrics of a split as text; empty if it was not measured."""
    if f"{split}/loss" not in metrics:
        return []
    found = [f"{split} loss {decimals(metrics[f'{split}/loss'])} acc {metrics[f'{split}/acc']:.4f}"]
    if split == "val":
        names = classifier.scoring.names if classifier.scoring else ()
        found += [f"{n} {decimals(metrics[f'val/{n}'])}" for n in names if f"val/{n}" in metrics]
    return found
