"""Stop a trial of a search early when its validation curve lags behind the other trials.

The first process decides after each epoch. `StopOnSignal` passes the decision to all processes of
the run at the start of the next epoch, after the checkpoint of the previous one has been saved.
"""

from collections.abc import Callable

import lightning.pytorch as pl

from glimpse.callbacks.epoch_record import of_this_epoch
from glimpse.callbacks.stop_on_signal import StopOnSignal
from glimpse.classifier import ImageClassifier
from glimpse.lightning_compat import IS_FIRST_PROCESS, LateCallback

# Epochs trained and the metric's value -> whether to stop.
ShouldStop = Callable[[int, float], bool]


class Pruning(LateCallback):
    """After each epoch with a validation, ask a judge about the metric `monitor`."""

    def __init__(self, judge: ShouldStop, monitor: str, stop: StopOnSignal) -> None:
        self._judge = judge
        self._monitor = monitor
        self._stop = stop

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ImageClassifier)
        value = of_this_epoch(trainer, pl_module).get(self._monitor)
        if value is None or not IS_FIRST_PROCESS:
            return
        if self._judge(trainer.current_epoch + 1, value):
            self._stop.prune()
