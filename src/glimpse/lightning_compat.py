"""Every use of Lightning's internals, each with its reason; written for Lightning 2.6.

Each workaround has a test in tests/test_lightning_compat.py, which fails once Lightning no longer
needs it. What only reads Lightning's state is tested by the training itself.
Nothing outside this file touches a private attribute of Lightning, relies on the order of its
callbacks, or sets an attribute of a Trainer other than `should_stop`, which Lightning documents.
"""

import functools
import logging
import math
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities import registry
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric
from torch.amp import GradScaler

HOOKS_OF_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
HOOKS_OF_EVALUATION = (
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_test_batch_start",
    "on_test_batch_end",
)


class LateCallback(Checkpoint):
    """A callback whose `on_train_epoch_end` sees the metrics that the module logs in that hook.

    Lightning calls checkpoint callbacks after the module and all others before it, so these
    callbacks inherit from Checkpoint. As a side effect, Lightning adds no ModelCheckpoint of its
    own.
    """


class LeanModule(pl.LightningModule):
    """A LightningModule that bypasses torch's attribute search where Lightning notes its hooks.

    Lightning sets `_current_fx_name` forty times a step. torch's `Module.__setattr__` would look
    through parameters and submodules each time, which takes three times as long.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def skip_empty_hooks(owner: pl.LightningModule | Callback) -> None:
    """Skip hooks that do nothing, which saves a tenth of a small network's step.

    Lightning wraps every hook in a profiler's context at each step, even hooks that do nothing. It
    skips a hook that is None.
    """
    is_module = isinstance(owner, pl.LightningModule)
    base = pl.LightningModule if is_module else Callback
    # Lightning inspects the arguments of a module's evaluation hooks, so they cannot be None.
    names = HOOKS_OF_A_STEP if is_module else (*HOOKS_OF_A_STEP, *HOOKS_OF_EVALUATION)
    for name in names:
        if getattr(type(owner), name) is getattr(base, name) and name not in vars(owner):
            setattr(owner, name, None)


def skip_hook(callback: Callback, name: str, *, skipped: bool) -> None:
    """Skip a hook for every batch, as if it were empty, or no longer skip it."""
    vars(callback).pop(name, None)
    if skipped:
        setattr(callback, name, None)


def log_faster() -> None:
    """Skip work that Lightning repeats for every logged metric and for every Trainer.

    Lightning moves a logged metric to the device where it already is, with a copy of its metadata.
    Each Trainer searches all installed packages for callbacks. In a short run, both take longer
    than its validations.
    """
    search = vars(registry)["entry_points"]
    if not hasattr(search, "cache_info"):
        vars(registry)["entry_points"] = functools.cache(search)
        _ResultMetric.to = _moved(_ResultMetric.to)  # type: ignore[method-assign]


def _moved(move: Callable[..., _ResultMetric]) -> Callable[..., _ResultMetric]:
    @functools.wraps(move)
    def to(self: _ResultMetric, *args: Any, **kwargs: Any) -> _ResultMetric:
        is_there = not kwargs and args == (getattr(self.value, "device", None),)
        return self if is_there else move(self, *args, **kwargs)

    return to


def callbacks_of(trainer: pl.Trainer) -> list[Callback]:
    """The callbacks of a trainer. Lightning sets this attribute where type checkers miss it."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def is_dry(trainer: pl.Trainer) -> bool:
    """Whether a trainer tries a few batches only, and keeps nothing: `trainer.fast_dev_run`."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def has_hook_of_a_step(callback: Callback) -> bool:
    """Whether a callback does something at every batch. Lightning's LambdaCallback sets its hooks
    on the instance."""
    return any(
        getattr(type(callback), name) is not getattr(Callback, name)
        or vars(callback).get(name) is not None
        for name in HOOKS_OF_A_STEP
    )


def note_step_ahead(trainer: pl.Trainer) -> None:
    """Count a batch and its optimizer step that Lightning has not seen, as Lightning would have.

    This advances `trainer.global_step`, the number of the next batch, and their values in
    checkpoints.
    """
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.increment_by(1)
    progress = loop.automatic_optimization.optim_progress.optimizer
    progress.step.increment_by(1)
    progress.zero_grad.increment_by(1)
    for schedule in trainer.lr_scheduler_configs:
        loop.scheduler_progress.increment_by(schedule.interval == "step")
    loop._batches_that_stepped += 1
    assert trainer.fit_loop._data_fetcher is not None
    trainer.fit_loop._data_fetcher.fetched += 1


def step_context(trainer: pl.Trainer) -> AbstractContextManager[Any]:
    """The precision's context for a training step.

    For plain fp32, Lightning enters two contexts that do nothing. That takes as long as the loss of
    a small network.
    """
    plugin = trainer.precision_plugin
    return nullcontext() if type(plugin) is Precision else plugin.train_step_context()


def next_batch(trainer: pl.Trainer) -> int:
    """The index of the next batch in this epoch, counted from 0."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def batches_until_seen(trainer: pl.Trainer) -> int:
    """The number of batches up to and including the next one that Lightning must see itself.

    That is the last batch of the epoch, the last one before a validation, the last of `max_steps`,
    or the last of `min_steps`, for which an early stop waits.
    """
    loop = trainer.fit_loop.epoch_loop
    progress = loop.batch_progress
    until = float(trainer.num_training_batches) - progress.current.ready
    interval = validation_interval(trainer)
    if not math.isinf(interval):
        every_epoch = trainer.check_val_every_n_epoch is not None
        done = progress.current.ready if every_epoch else progress.total.ready
        until = min(until, interval - done % interval)
    if loop.max_steps != -1:
        until = min(until, loop.max_steps - loop.global_step)
    if loop.min_steps and loop.global_step < loop.min_steps:
        until = min(until, loop.min_steps - loop.global_step)
    return max(1, int(min(until, 2**31)))


def loss_scaler(trainer: pl.Trainer) -> GradScaler | None:
    """What scales the loss, as in fp16, and may skip a step; None otherwise."""
    plugin = trainer.precision_plugin
    return plugin.scaler if isinstance(plugin, MixedPrecision) else None


def writes_profile(trainer: pl.Trainer) -> bool:
    """Whether a profiler wants to see every step."""
    return not isinstance(trainer.profiler, PassThroughProfiler)  # type: ignore[attr-defined]


def run_stopped_validation(trainer: pl.Trainer) -> None:
    """Repeat the validation during which a training was stopped, when that training is resumed.

    Lightning would skip it, because its loop has counted the batches as done. If the validation ends
    the training, as early stopping does, Lightning would not enter its loop, so the epoch ends here.
    """
    validation = trainer.fit_loop.epoch_loop.val_loop
    validation.restarting = False
    trainer.validating = True
    validation.run()
    validation.reset()  # or Lightning would skip the next epoch's validation as done
    trainer.training = True
    loop = trainer.fit_loop
    if trainer.should_stop and loop._can_stop_early:
        loop.epoch_loop._batches_that_stepped += not is_accumulating(trainer)
        loop.on_advance_end()


def validates_next(trainer: pl.Trainer) -> bool:
    """Whether a validation follows the batch that has just been trained.

    After a resume from a checkpoint saved just before that validation, Lightning skips it.
    """
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def validation_interval(trainer: pl.Trainer) -> float:
    """The number of batches from one validation to the next; infinite if a time decides."""
    interval = trainer.val_check_batch
    return math.inf if interval is None else interval


def is_last_validation(trainer: pl.Trainer) -> bool:
    """Whether no validation follows the current one in its epoch, as far as batches decide."""
    left = trainer.num_training_batches - next_batch(trainer)
    return ends_epoch(trainer) or left < validation_interval(trainer)


def is_after_batch(trainer: pl.Trainer) -> bool:
    """Whether the hooks after a trained batch are being called: in `on_train_batch_end`."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return bool(progress.processed > progress.completed)


def ends_epoch(trainer: pl.Trainer) -> bool:
    """Whether the batch just trained is the last of its epoch, even because of an early stop."""
    loop = trainer.fit_loop
    return loop.epoch_loop._is_training_done or (trainer.should_stop and loop._can_stop_early)


def has_ended_epoch(trainer: pl.Trainer) -> bool:
    """Whether all batches of the current epoch have been trained: in `on_train_epoch_end`."""
    epoch: Any = trainer.fit_loop.epoch_progress.current
    return bool(epoch.processed > epoch.completed)


def epochs_trained(trainer: pl.Trainer) -> int:
    """The number of epochs that have been trained.

    In a run that is resumed with no step of `max_steps` left, `trainer.current_epoch` is one too
    low.
    """
    epoch: Any = trainer.fit_loop.epoch_progress.current
    return int(epoch.processed)


def begin_next_epoch(trainer: pl.Trainer) -> None:
    """Start a new epoch in a training that is resumed from the end of an epoch.

    With `trainer.max_steps`, Lightning would end the old epoch a second time and not start a new
    one.
    """
    loop = trainer.fit_loop
    if has_ended_epoch(trainer):
        loop.epoch_progress.increment_completed()
        loop._restarting = loop.epoch_loop.restarting = False
        loop.reset_restart_stage()
        loop.epoch_loop.reset_restart_stage()


def is_accumulating(trainer: pl.Trainer) -> bool:
    """Whether gradients have been accumulated for an optimizer step that later batches complete."""
    return trainer.fit_loop._should_accumulate()


def next_step_of_loggers(trainer: pl.Trainer) -> int:
    """The lowest step that loggers can receive after a resume from a checkpoint saved now.

    Lightning counts a batch after the validation that follows it.
    """
    loop = trainer.fit_loop.epoch_loop
    validation: Any = loop.val_loop.batch_progress.current
    if has_ended_epoch(trainer):
        return loop._batches_that_stepped + is_accumulating(trainer)
    is_in_validation = trainer.validating and validation.processed != validation.completed
    return loop._batches_that_stepped + (not is_in_validation)


def send_epoch_to_loggers(trainer: pl.Trainer) -> None:
    """Send the epoch's metrics before the epoch's checkpoint is saved.

    Lightning sends them afterwards. If the process were killed in between, no logger would ever
    receive them: the checkpoint counts the epoch as done.
    """
    loop = trainer.fit_loop.epoch_loop
    # As Lightning does, so that the step is that of the last batch. An early stop may end an epoch
    # at a batch without a step, where Lightning would name the step before the last one.
    counted = int(not is_accumulating(trainer))
    loop._batches_that_stepped -= counted
    trainer._logger_connector.update_train_epoch_metrics()  # and forgets them
    loop._batches_that_stepped += counted


def set_up_callbacks(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule
) -> None:
    """Call `setup` of every callback without a fit, so that each can reject the run.

    Callbacks ask the trainer for its data, which usually `Trainer.fit` provides.
    """
    trainer.datamodule = data  # type: ignore[attr-defined]
    for callback in callbacks_of(trainer):
        callback.setup(trainer, module, "fit")


def skip_question_of_sigterm(trainer: pl.Trainer) -> None:
    """Skip a question that Lightning asks the first of several processes before every batch.

    It asks whether that process has received SIGTERM, and a GPU waits for the answer.
    `StopOnSignal` replaces Lightning's handler, and asks once a second.
    """
    loop = trainer.fit_loop.epoch_loop
    loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def limit_test(trainer: pl.Trainer, limit: float) -> None:
    """Limit the next `Trainer.test`: an int is a number of batches, a float a share of them."""
    trainer.limit_test_batches = limit


def stop_profiling(trainer: pl.Trainer) -> None:
    """Keep only the profile of the training: `Trainer.test` would write a second one."""
    trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]


def settle(device: str) -> None:
    """Silence warnings that a run replaces by better ones, and correct environment variables.

    Args:
        device: "cuda", "mps" or "cpu". On the CPU, each step of Adam would look for a GPU by
            loading NVML anew, because Lightning's import sets PYTORCH_NVML_BASED_CUDA_CHECK to 1.
            On a GPU, `trainer.deterministic=true` needs a variable that is read only once, before
            the first matrix product of the process. Lightning sets it too late if another run
            came before.
    """
    log_faster()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 uses a name that torch 2.14 has deprecated.
    warnings.filterwarnings("ignore", ".*LeafSpec.*deprecated")
    # On a cluster's login node. With srun, distributed/place.py reads its variables.
    warnings.filterwarnings("ignore", ".*`srun` command is available.*")
    # The classifier logs numbers that are already summed over the processes.
    warnings.filterwarnings("ignore", ".*sync_dist=True.*")
    # network.py remarks on it.
    warnings.filterwarnings("ignore", r".*module\(s\) in eval mode at the start of training.*")
    # A resumed run may leave out callbacks; resume.py names those that it needs.
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint.*")
    if device == "cpu":
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    elif device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the value of Lightning


# Lightning reads the rank from RANK, which distributed/place.py has checked.
IS_FIRST_PROCESS = getattr(rank_zero_only, "rank", 0) == 0
