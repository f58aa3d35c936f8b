"""Decide when a trial of a search stops early: Optuna's pruners compare the curves of the trials.

A trial reports to the study's file itself. It may therefore run in any process, and on any machine
that sees the sweep's folder.
"""

from pathlib import Path

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import Trial

from glimpse.console import console
from glimpse.search.study import (
    NAME,
    READING_ERRORS,
    STORAGE_ERRORS,
    cause_of,
    in_one_line,
    open_storage,
)

NUM_COMPLETE = 5  # complete trials that are needed before the median stops one
WARM_UP = 3  # the median stops no trial in the first third of its epochs
REDUCTION = 3  # of Hyperband: about one trial in three continues after 1, 3, 9, … epochs


class Judge:
    """Decides after each epoch whether a trial stops.

    Args:
        path: The study's file.
        number: The trial's number.
        pruner: "median", "hyperband" or "halving".
        num_epochs: The number of epochs of a complete trial; 0 or less if unlimited.
        until: With halving, the number of epochs after which the trial waits.
    """

    def __init__(
        self, path: Path, number: int, *, pruner: str, num_epochs: int, until: int | None = None
    ) -> None:
        self.path = path
        self._until = until
        built = build_pruner(pruner, num_epochs)
        with in_one_line(path, READING_ERRORS):
            study = optuna.load_study(study_name=NAME, storage=open_storage(path), pruner=built)
            frozen = study.get_trials(deepcopy=False)[number]
        self._is_open = not frozen.state.is_finished()  # a finished trial may be resumed by hand
        # Optuna has no public way to reopen a trial that another process started.
        self._trial = Trial(study, frozen._trial_id)
        self._reported = set(frozen.intermediate_values)

    def __call__(self, epoch: int, value: float) -> bool:
        """Report an epoch's monitored metric; returns whether the trial stops now.

        Args:
            epoch: The number of epochs trained so far.
            value: The metric.
        """
        if not self._is_open or epoch in self._reported:  # reported before an interruption
            return False
        self._reported.add(epoch)
        try:
            self._trial.report(value, epoch)
            if self._until is not None:
                return epoch >= self._until
            return self._trial.should_prune()
        except STORAGE_ERRORS as error:
            self._is_open = False
            console.print(f"{self.path}: {cause_of(error)}; this trial will not stop early")
            return False


def build_pruner(name: str, num_epochs: int) -> BasePruner:
    """Optuna's pruner for trials of `num_epochs` epochs.

    "median" stops a trial whose best value is worse than the median of the others at the same epoch
    (Golovin et al. 2017, Google Vizier, sec. 3.1). "hyperband" compares trials after 1, 3, 9, …
    epochs, in brackets that differ in the first comparison (Li et al. 2018, arXiv:1603.06560).
    """
    if name == "halving":  # halving.py decides
        return NopPruner()
    if name == "median":
        warm_up = num_epochs // WARM_UP + 1  # epochs count from 1
        return MedianPruner(n_startup_trials=NUM_COMPLETE, n_warmup_steps=warm_up)
    longest: int | str = num_epochs if num_epochs > 0 else "auto"
    return HyperbandPruner(max_resource=longest, reduction_factor=REDUCTION)
