"""Record the metrics and the speed of each epoch in `metrics.csv`.

An epoch costs the same however many came before it: its row is appended to the file, and a
checkpoint holds all rows as one text, which is the file's content.
"""

import csv
import io
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch

from glimpse.classifier import ImageClassifier
from glimpse.data.loader import Batch
from glimpse.files import append_text, write_text
from glimpse.lightning_compat import IS_FIRST_PROCESS, LateCallback, is_dry, send_epoch_to_loggers
from glimpse.records import METRICS, OF_THE_SPEED

# Before and after the metrics that `metrics=[…]` adds.
COLUMNS = ("epoch", "step", "train/loss", "train/acc", "val/loss", "val/acc", "val/top5")
LAST_COLUMNS = ("lr", *OF_THE_SPEED)
COUNTS = ("epoch", "step")


class EpochRecord(LateCallback):
    """Write a row per epoch to `metrics.csv`, with any loggers, and measure `images_per_second`.

    The columns are the metrics that training and validation log, by their `names`, and the speed.
    """

    sees_chunks = True

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.path = folder / METRICS
        self._names = tuple(names)
        self.rows: list[dict[str, Any]] = []
        self._columns: tuple[str, ...] = ()
        self._lines: list[str] = []  # the header and the rows, as in the file
        self._size = -1  # of the file in bytes; -1 if it has to be written anew
        self._keep([])
        self._before: dict[str, Any] = {}  # what was logged before this epoch
        self._began: float | None = None  # time at which the epoch's first batch began
        self._duration = 0.0  # seconds from then to the end of the last batch, without validation
        self._validating = 0.0
        self._validation_began = 0.0
        self._images = 0  # of this process, in the epoch so far
        self._images_before = 0  # of these, the images trained before a resume
        self.most_images = 0  # largest number of training images in an epoch, over all processes

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before = dict(trainer.callback_metrics)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if self._began is None:
            self._began, self._validating = time.perf_counter(), 0.0
            self._images_before = _images_so_far(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self._images = _images_so_far(pl_module)
        self.most_images = max(self.most_images, self._images * trainer.world_size)
        if trainer.is_last_batch and self._began is not None:
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()
            self._duration = time.perf_counter() - self._began - self._validating

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validating += time.perf_counter() - self._validation_began

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the speed, add the epoch's row, and send the epoch to the loggers."""
        if self._duration:
            images = self._images - self._images_before
            speed = images * trainer.world_size / self._duration
            pl_module.log("images_per_second", round(speed, 1), rank_zero_only=True)
        assert isinstance(pl_module, ImageClassifier)
        metrics = of_this_epoch(trainer, pl_module) | self._of_callbacks(trainer)
        if new := [name for name in metrics if name not in self._columns]:
            self._names += tuple(new)
            self._keep(self.rows)
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        own = (*COUNTS, *OF_THE_SPEED)  # a callback may log an epoch too
        row |= {n: metrics[n] for n in self._columns if n in metrics and n not in own}
        if self._duration:
            row |= {"images_per_second": round(speed, 1), "seconds": round(self._duration, 3)}
        self.rows.append(row)
        self._lines.append(self._line(row))
        self._began, self._duration = None, 0.0
        self._images = self._images_before = 0
        if IS_FIRST_PROCESS and not is_dry(trainer):
            self._write()
        send_epoch_to_loggers(trainer)

    def _of_callbacks(self, trainer: pl.Trainer) -> dict[str, float]:
        """The metrics that callbacks have logged in this epoch.

        Lightning keeps those of earlier epochs too, but as the same tensors.
        """
        fresh = [n for n, v in trainer.callback_metrics.items() if self._before.get(n) is not v]
        forked = {f"{name}_{end}" for name in fresh for end in ("step", "epoch")}
        found = logged(trainer)
        return {name: found[name] for name in fresh if name in found and name not in forked}

    def _keep(self, rows: Iterable[dict[str, Any]]) -> None:
        """Start from these rows, such as those before a resume. The file is then written anew."""
        self.rows, self._size = list(rows), -1
        names = (*(name for row in self.rows for name in row), *self._names)
        more = [name for name in names if name not in LAST_COLUMNS]
        self._columns = tuple(dict.fromkeys((*COLUMNS, *more, *LAST_COLUMNS)))
        self._lines = [_csv(self._columns), *map(self._line, self.rows)]

    def _line(self, row: dict[str, Any]) -> str:
        return _csv([row.get(name, "") for name in self._columns])

    def _write(self) -> None:
        """Append the last row, or write the whole file if it is not as this process left it."""
        # Checkpoints hold the rows too, so they need not be flushed to the disk here.
        line = self._lines[-1]
        if append_text(self.path, line, size=self._size):
            self._size += len(line.encode())
        else:
            self._write_anew()

    def _write_anew(self) -> None:
        text = "".join(self._lines)
        write_text(self.path, text, flush=False)
        self._size = len(text.encode())

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, so that a resumed run needs no file except its checkpoint."""
        rows = "".join(self._lines)
        return {"most_images": self.most_images, "images": self._images, "rows": rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.most_images = state_dict["most_images"]
        self._images = self._images_before = state_dict["images"]
        self._keep(rows_of(state_dict["rows"]))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the rows of the epochs that the checkpoint had finished."""
        self._keep([row for row in self.rows if row["epoch"] <= trainer.current_epoch])

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file of a finished run anew, as it may be damaged or gone."""
        if self.rows and self._size < 0 and IS_FIRST_PROCESS and not is_dry(trainer):
            self._write_anew()

    def images_per_second(self) -> float | None:
        """The median speed over the epochs; None before the first."""
        speeds = [float(r["images_per_second"]) for r in self.rows if r.get("images_per_second")]
        return median(speeds) if speeds else None


def rows_of(text: str) -> list[dict[str, Any]]:
    """The rows in the text of a table of epochs, without empty cells.

    Raises:
        ValueError, TypeError: a cell is not a finite number.
    """
    rows = []
    for cells in csv.DictReader(text.splitlines()):
        filled = {name: cell for name, cell in cells.items() if cell}
        row = {n: int(cell) if n in COUNTS else float(cell) for n, cell in filled.items()}
        if not all(map(math.isfinite, row.values())):
            raise ValueError(f"a cell in {METRICS} is not finite")
        rows.append(row)
    return rows


def _csv(cells: Iterable[Any]) -> str:
    csv.writer(line := io.StringIO(newline="")).writerow(cells)
    return line.getvalue()


def _images_so_far(classifier: pl.LightningModule) -> int:
    """The images of this epoch that this process has trained on."""
    assert isinstance(classifier, ImageClassifier)
    return classifier.counts.num_images("train")


def logged(trainer: pl.Trainer) -> dict[str, float]:
    """The metrics logged last, rounded to the seven digits of float32, without undefined ones."""
    found = {name: seven_digits(v.item()) for name, v in trainer.callback_metrics.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def of_this_epoch(trainer: pl.Trainer, classifier: ImageClassifier) -> dict[str, float]:
    """The classifier's metrics of the current epoch, without a validation of an earlier one."""
    own = {*classifier.logged_names, "lr", "images_per_second"}
    metrics = {n: v for n, v in logged(trainer).items() if n in own and not n.startswith("val/")}
    found = classifier.validation or {}
    return metrics | {name: seven_digits(value) for name, value in found.items()}


def seven_digits(value: float) -> float:
    """Round to the seven digits of float32."""
    return float(f"{value:.7g}")
