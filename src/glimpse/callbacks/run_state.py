"""Save and restore the run's own state, in addition to Lightning's and the other callbacks'.

The checkpoint's `glimpse` entry is plain data: the resolved configuration, the ImageSpec, the
identity of the data, the next batch of the epoch, whether training was told to stop early, and the
state of the random generators. This callback comes before our others, so that the state is restored
before any of them acts at the start of a resumed training, for example by validating.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping, GradientAccumulationScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from glimpse.callbacks.time_left import steps_of_an_epoch
from glimpse.classifier import ImageClassifier
from glimpse.data.module import ImageDataModule
from glimpse.distributed.gather import of_all_processes
from glimpse.errors import UserError
from glimpse.lightning_compat import (
    begin_next_epoch,
    callbacks_of,
    ends_epoch,
    has_ended_epoch,
    next_step_of_loggers,
)
from glimpse.nonfinite import weight_not_finite
from glimpse.seeding import OVER_A_MILLION, OVER_A_THOUSAND, restore, seed_all, state_of_generators
from glimpse.steps_ahead import StepsAhead

# Groups of the configuration:
DECIDE_A_SCHEDULE = ("optimizer", "scheduler", "trainer")
# Keys of the trainer that decide the number of steps in an epoch:
DECIDE_AN_EPOCH = ("accumulate_grad_batches", "limit_train_batches", "overfit_batches")
DECIDE_THE_END = ("callbacks", "trainer")
# Of an optimizer's group; a fused step needs its state on the device, where a checkpoint's is not.
KEPT_IN_A_GROUP = ("params", "lr", "fused", "foreach")
RATES = ("lr", "matrix_lr")  # keys of the optimizer


class RunState(Callback):
    """Write the run's own state into every checkpoint, and restore it when training begins.

    The state includes `config`, the run's resolved configuration as plain data.
    """

    def __init__(self, config: Mapping[str, Any], data: ImageDataModule) -> None:
        self.config = config
        self.data = data
        self._resumed: Mapping[str, Any] | None = None
        self._optimizer: Mapping[str, Any] = {}  # its state in the checkpoint

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        first, *others = of_all_processes(state_of_generators(pl_module.device))
        is_over = has_ended_epoch(trainer)
        checkpoint["glimpse"] = {
            "config": dict(self.config),
            "spec": self.data.spec.as_dict(),
            "stored_size": list(self.data.stored_size),
            "white": self.data.contents.format.white,
            "fingerprint": self.data.fingerprint,
            "next_batch": _loader(trainer).state_dict(is_over=is_over or ends_epoch(trainer)),
            "next_step": next_step_of_loggers(trainer),
            "should_stop": trainer.should_stop,
            "global_batch_size": self._global_batch_size(trainer),
            "random_state": first,
            "random_states_of_others": others,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the state for `on_train_start`; resume.py has checked that it fits.

        An EarlyStopping is about to load its state, which would include the checkpoint's patience.
        """
        self._resumed = checkpoint["glimpse"]
        [self._optimizer] = checkpoint.get("optimizer_states") or [{}]
        for callback in callbacks_of(trainer):
            if (
                isinstance(callback, EarlyStopping)
                and callback.state_key in checkpoint["callbacks"]
            ):
                checkpoint["callbacks"][callback.state_key]["patience"] = callback.patience

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After a resume, restore the next batch and the random generators of the checkpoint.

        Raises:
            UserError: the checkpoint's weights are not finite.
        """
        saved, self._resumed = self._resumed, None
        if saved is None:
            return
        assert isinstance(pl_module, ImageClassifier)
        if name := weight_not_finite(pl_module.network):
            raise UserError(
                f"{trainer.ckpt_path}: the weights {name} are not finite, so training cannot continue from them: "
                "remove this file to resume from another checkpoint of the run, or start a new run"
            )
        restore_numbers(trainer.optimizers[0], self._optimizer)
        self._optimizer = {}
        begin_next_epoch(trainer)
        # Lightning does not restore the loader's state once the number of steps has been requested.
        _loader(trainer).load_state_dict(saved["next_batch"])
        for callback in callbacks_of(trainer):
            if isinstance(callback, GradientAccumulationScheduler):  # called where epochs begin
                callback.on_train_epoch_start(trainer)
        before = saved["config"]
        pl_module.go_on(before=before["scheduler"], now=self.config["scheduler"])
        if saved["should_stop"] and all(before[g] == self.config[g] for g in DECIDE_THE_END):
            trainer.should_stop = True
        self._take_new_settings(trainer, pl_module, before, self._steps_at_new_pace(trainer, saved))
        states = [saved["random_state"], *saved["random_states_of_others"]]
        if trainer.global_rank < len(states):
            restore(states[trainer.global_rank], pl_module.device)
        else:  # resumed on more processes
            seed = self.config["seed"] * OVER_A_THOUSAND + trainer.global_step * OVER_A_MILLION
            seed_all(seed + trainer.global_rank)

    def _global_batch_size(self, trainer: pl.Trainer) -> int:
        return self.data.batches.batch_size * trainer.world_size

    def _steps_at_new_pace(self, trainer: pl.Trainer, saved: Mapping[str, Any]) -> int | None:
        """The steps so far, had each epoch had as many as the next one; None to count as before.

        Batches of another size change the number of steps in an epoch. A schedule over the length
        of the run then continues at the same part of the run. A run that `max_steps` ends counts
        its steps.
        """
        before, now = saved["config"], self.config
        has_same_batches = saved["global_batch_size"] == self._global_batch_size(trainer)
        if (
            has_same_batches
            and before["scheduler"] == now["scheduler"]
            and all(
                before["trainer"].get(key) == now["trainer"].get(key) for key in DECIDE_AN_EPOCH
            )
        ):
            return None
        if any(isinstance(c, GradientAccumulationScheduler) for c in callbacks_of(trainer)):
            return None  # epochs differ anyway
        each = trainer.accumulate_grad_batches
        of_an_epoch = steps_of_an_epoch(trainer)
        most = trainer.max_epochs
        in_epochs = math.inf if most is None or most < 0 else most * of_an_epoch
        if 0 <= trainer.max_steps <= in_epochs:
            return None
        in_this_epoch: int = saved["next_batch"]["next_batch"] // each
        return trainer.current_epoch * of_an_epoch + in_this_epoch

    def _take_new_settings(
        self,
        trainer: pl.Trainer,
        classifier: ImageClassifier,
        before: Mapping[str, Any],
        steps: int | None,
    ) -> None:
        """Replace the checkpoint's optimizer and scheduler settings with the resumed run's.

        A plateau schedule has only the groups' rates to remember its reductions by. They stay unless
        the schedule or the rate itself has changed.

        Args:
            before: The checkpoint's configuration.
            steps: Where a schedule over the length of the run continues; None: where it was.
        """
        groups = trainer.optimizers[0].param_groups
        fresh = classifier.new_optimizer().param_groups
        optimizer, was = self.config["optimizer"], before["optimizer"]
        is_other_schedule = before["scheduler"]["_target_"] != self.config["scheduler"]["_target_"]
        has_other_rate = any(was.get(key) != optimizer.get(key) for key in RATES)
        for group, new in zip(groups, fresh, strict=True):
            if is_other_schedule or was != optimizer:
                group |= {k: v for k, v in new.items() if k not in KEPT_IN_A_GROUP}
            if is_other_schedule or has_other_rate:
                group |= {"lr": new["lr"], "initial_lr": new["lr"]}
        has_changed = any(before[group] != self.config[group] for group in DECIDE_A_SCHEDULE)
        for schedule in trainer.lr_scheduler_configs:
            scheduler = schedule.scheduler
            moved_to = steps if schedule.interval == "step" else None
            if not isinstance(scheduler, LambdaLR):
                has_length = hasattr(scheduler, "total_steps") or hasattr(scheduler, "T_max")
                if has_length and moved_to is not None:
                    scheduler.last_epoch = moved_to
                if has_changed or (has_length and moved_to is not None):
                    _replay(scheduler, classifier, groups)
                continue
            if schedule.interval == "epoch" and not has_changed:
                continue  # a callback may have changed the rate within the epoch
            if before["scheduler"] != self.config["scheduler"]:
                per_step = schedule.interval == "step"
                scheduler.last_epoch = trainer.global_step if per_step else trainer.current_epoch
            if moved_to is not None:
                scheduler.last_epoch = moved_to
            scheduler.base_lrs = [new["lr"] for new in fresh]
            factors = zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, rate, factor in factors:
                group["lr"] = rate * factor(scheduler.last_epoch)


def restore_numbers(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Restore the single numbers in an optimizer's state, such as `mu_product` of NAdam.

    torch has rounded them to the type of the parameters, which may be bf16.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = saved.get("state", {})
    for index, parameter in enumerate(parameters):
        found = optimizer.state.get(parameter, {})  # a wrapper of an optimizer has it elsewhere
        for name, value in states.get(index, {}).items():
            now = found.get(name)
            are_tensors = isinstance(value, Tensor) and isinstance(now, Tensor)
            if are_tensors and value.ndim == 0 and value.is_floating_point():
                found[name] = value.to(now.device)


def _replay(
    scheduler: LRScheduler, classifier: ImageClassifier, groups: list[dict[str, Any]]
) -> None:
    """Bring a torch scheduler and the optimizer's groups to their state after this many steps of
    the new settings. The steps are replayed, because most schedulers compute each rate from the
    previous one."""
    optimizer = classifier.new_optimizer()
    fresh = classifier.new_schedule(optimizer).scheduler
    assert isinstance(fresh, LRScheduler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about steps of the optimizer, which is not stepped here
        for _ in range(scheduler.last_epoch):
            fresh.step()
    scheduler.load_state_dict(fresh.state_dict())
    for group, new in zip(groups, optimizer.param_groups, strict=True):
        group |= {key: value for key, value in new.items() if key != "params"}


def _loader(trainer: pl.Trainer) -> StepsAhead:
    loader = trainer.train_dataloader
    assert isinstance(loader, StepsAhead)
    return loader
