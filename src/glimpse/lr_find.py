"""`task=lr_find`: increase the learning rate at each step until the loss diverges; suggest one.

Source: L. Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3, as
implemented in fastai. The rate grows by a constant factor, the loss is smoothed, the test stops
when the smoothed loss exceeds four times its minimum, and three points of the curve are suggested.

The test trains a copy of the classifier with the run's precision and augmentation, so only the
random state has to be restored. It does not use Lightning's Tuner.lr_find, which gives every
parameter group the same rate, saves and reloads a checkpoint around the test, does not restore the
random state, and finds the steepest point over the rate itself instead of its logarithm.

Left out: early stopping, validation and other Lightning callbacks during the test.
"""

import copy
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from glimpse.command import as_shown, to_type
from glimpse.console import console
from glimpse.errors import DivergedError, UserError
from glimpse.files import subfolder, write_csv
from glimpse.lightning_compat import IS_FIRST_PROCESS, LateCallback
from glimpse.loggers.record import show
from glimpse.optim.schedules import Schedule
from glimpse.parts import Parts
from glimpse.plots.range_test import draw_range_test
from glimpse.runs.settings import overrides_of
from glimpse.summary import relative_to_here
from glimpse.trainer import build_trainer

SMOOTHING = 0.98  # of the loss; this value and the next three are fastai's
BLOWN_UP = 4.0  # the test stops above this multiple of the lowest smoothed loss
LEFT_OUT_BEFORE = 0.1  # share of the steps skipped at the start, which average too few losses
LEFT_OUT_AFTER = 5  # steps skipped at the end, where the loss diverges
FEWEST_POINTS = 5  # the minimum number of points for a suggestion
COLUMNS = ("lr", "loss", "smoothed_loss")


class RangeTest(LateCallback):
    """Record the loss of each optimizer step, and stop the fit when the loss diverges.

    Args:
        rates: The learning rate of each step, as a value of `optimizer.lr`.
    """

    def __init__(self, rates: Sequence[float]) -> None:
        self.rates = rates
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.has_diverged = False
        self._average = 0.0
        self._batches: list[Tensor] = []  # losses since the last optimizer step

    def schedule(self, lr: float) -> Callable[[Any, float], Schedule]:
        """A schedule that scales the rates of all groups, so that their ratios stay the same.

        The groups were built with this `optimizer.lr`.
        """
        last = len(self.rates) - 1
        return lambda optimizer, _total_steps: Schedule(
            LambdaLR(optimizer, lambda step: self.rates[min(step, last)] / lr), "step"
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self._batches.append(outputs["loss"] * trainer.accumulate_grad_batches)
        if trainer.global_step == len(self.losses):  # no optimizer step: gradients accumulate
            return
        loss = trainer.strategy.reduce(torch.stack(self._batches).mean(), reduce_op="mean")
        assert isinstance(loss, Tensor)
        self._batches.clear()
        self.losses.append(loss.item())
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * self.losses[-1]
        self.smoothed.append(self._average / (1 - SMOOTHING ** len(self.losses)))
        blown_up = self.smoothed[-1] > BLOWN_UP * min(self.smoothed)
        if blown_up or not math.isfinite(self.losses[-1]):
            self.has_diverged = True
            trainer.should_stop = True

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.has_diverged = isinstance(exception, DivergedError)


def find(parts: Parts) -> dict[str, float]:
    """Test learning rates on a copy of the classifier and write the curve to the run folder.

    The loggers also receive the curve. Nothing in the parts changes.

    Returns:
        The suggestions, as metrics of the run.

    Raises:
        UserError: optimizer.lr is 0, or there are too few steps for a curve.
    """
    config, folder, settings = parts.config, parts.summary.folder, parts.config.lr_find
    lr = float(parts.classifier.new_optimizer().param_groups[0]["lr"])
    if not lr:
        raise UserError("optimizer.lr=0: task=lr_find expects a rate to scale; type one above 0")
    rates = np.geomspace(settings.start, settings.end, settings.num_steps).tolist()
    console.print(f"trying learning rates from {rates[0]:g} to {rates[-1]:g} in {len(rates)} steps")
    test = RangeTest(rates)
    trial = copy.deepcopy(parts.classifier)
    trial.use_schedule(test.schedule(lr))
    changed = _for_the_test(config)
    trainer = build_trainer(changed, parts.precision.name, [], folder, [test], place=parts.place)
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), suppress(DivergedError):
        trainer.fit(trial, datamodule=parts.data)
    suggested = suggest(rates, test.smoothed, has_diverged=test.has_diverged)
    if IS_FIRST_PROCESS:
        rows = zip(test.rates, test.losses, test.smoothed, strict=False)
        write_csv(folder / "lr_find.csv", COLUMNS, rows)
        picture = subfolder(folder, "figures") / "lr_find.png"
        draw_range_test(test.rates, test.losses, test.smoothed, suggested, picture)
        _log(parts.loggers.values(), test, picture)
        for name, rate in suggested.items():
            console.print(f"{name:11} {rate:.2g}")
        console.print(f"curve: {relative_to_here(picture)}")
        rate = suggested["valley"]
        if "lr" in config.optimizer:
            console.print(f"train with: {_command(folder, config.optimizer, rate)}")
        else:
            console.print(f"to train with it, add lr: {rate:.2g} to the optimizer's YAML file")
    return {f"lr_find/{name}": rate for name, rate in suggested.items()}


def _for_the_test(config: DictConfig) -> DictConfig:
    """The configuration of the test: steps instead of epochs, no validation, few callbacks.

    Only our own callbacks that change the training remain.
    """
    num_steps = config.lr_find.num_steps
    steps = {
        "max_epochs": num_steps, "max_steps": num_steps, "min_epochs": None,
        "min_steps": None, "fast_dev_run": False, "limit_val_batches": 0,
        "num_sanity_val_steps": 0, "val_check_interval": 1.0, "check_val_every_n_epoch": 1,
        "max_time": None,
    }  # fmt: skip
    changed = OmegaConf.merge(config, {"trainer": steps})
    assert isinstance(changed, DictConfig)
    # Without progressive sizes, the rate is tested at the full size, which training ends with.
    apart = ("pictures", "progressive_sizes")
    chosen = {n: c for n, c in (config.callbacks or {}).items() if c and n not in apart}
    changed.callbacks = {n: c for n, c in chosen.items() if c._target_.startswith("glimpse.")}
    finetune = changed.callbacks.get("finetune")
    if finetune and finetune.frozen_epochs:  # test the head alone, as in the first epochs
        finetune.frozen_epochs = num_steps
    return changed


def suggest(
    rates: Sequence[float], smoothed: Sequence[float], *, has_diverged: bool = True
) -> dict[str, float]:
    """Suggest a tenth of the rate at the lowest loss, the steepest point, and the valley's point.

    Args:
        rates: The rate of each step, evenly spaced on a logarithmic scale. There may be more rates
            than losses.
        smoothed: The smoothed losses.
        has_diverged: Whether the test ended because the loss diverged.

    Raises:
        UserError: there are too few finite losses.
    """
    first = int(LEFT_OUT_BEFORE * len(rates))
    losses = np.array(smoothed)[first:-LEFT_OUT_AFTER]
    losses = losses[np.isfinite(losses)]  # only the last one can be non-finite
    if len(losses) < FEWEST_POINTS and not has_diverged:
        raise UserError(
            f"task=lr_find: too few steps: the test ended after {len(smoothed)} of {len(rates)} steps, "
            "before the loss diverged: remove what ended it, such as trainer.limit_train_batches=0"
        )
    if len(losses) < FEWEST_POINTS:
        raise UserError(
            f"task=lr_find: the loss diverged after {len(smoothed)} steps, at a learning rate of "
            f"{rates[max(len(smoothed) - 1, 0)]:.2g}: type a lower lr_find.start"
        )
    return {
        "minimum/10": rates[first + int(losses.argmin())] / 10,
        "steepest": rates[first + int(np.diff(losses).argmin())],
        "valley": rates[first + valley(losses)],
    }


def valley(losses: NDArray[np.float64]) -> int:
    """Two thirds of the way down the longest valley, as an index into the losses.

    The valley is the longest decreasing subsequence of the losses. Two thirds is the value in
    fastai's documentation. Its code uses one half, which gave too low a rate on digits and
    Fashion-MNIST. It also lets the valley start at its end minus its number of losses. Ours starts
    at its first loss, which is earlier if the subsequence skips losses, so the suggestion can also
    be lower than fastai's.
    """
    lengths, starts = np.ones(len(losses), int), np.arange(len(losses))
    for i in range(len(losses)):
        higher = np.flatnonzero(losses[:i] > losses[i])
        if len(higher):
            before = higher[lengths[higher].argmax()]
            lengths[i], starts[i] = lengths[before] + 1, starts[before]
    end = int(lengths.argmax())
    start = int(starts[end])
    return start + (end - start) * 2 // 3


def _command(folder: Path, optimizer: DictConfig, rate: float) -> str:
    """The command that trains at this rate. A `matrix_lr` is scaled by the same factor."""
    own = ("task=", "lr_find.", "optimizer.lr=", "optimizer.matrix_lr=")
    kept = [override for override in overrides_of(folder) if not override.startswith(own)]
    rates = [f"optimizer.lr={rate:.2g}"]
    if optimizer.get("matrix_lr") is not None:
        rates.append(f"optimizer.matrix_lr={optimizer.matrix_lr * rate / optimizer.lr:.2g}")
    return to_type(*map(as_shown, kept), *rates)


def _log(loggers: Collection[Logger], test: RangeTest, picture: Path) -> None:
    """Log the curve as an image, and its values per step as scalars."""
    for logger in loggers:
        for step, row in enumerate(zip(test.rates, test.losses, test.smoothed, strict=False)):
            named = zip(COLUMNS, row, strict=True)
            logger.log_metrics({f"lr_find/{name}": value for name, value in named}, step)
    show(loggers, picture, 0)
