"""ImageClassifier, the only LightningModule: a network, a loss, and one step for all splits.

The loss and the number of correct predictions are accumulated on the device and read once per
epoch. For a small network, logging every step would cost more than the step itself.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from glimpse.counting import Counts
from glimpse.data.loader import Batch
from glimpse.data.module import data_of
from glimpse.data.spec import ImageSpec
from glimpse.distributed.gather import of_all_processes, summed
from glimpse.errors import DIVERGED, LOWER_RATE, DivergedError, UserError
from glimpse.lightning_compat import (
    LeanModule,
    is_accumulating,
    loss_scaler,
    next_batch,
    step_context,
)
from glimpse.loss_watch import LossWatch
from glimpse.losses import divisor, exact_loss, keep_exact
from glimpse.nonfinite import where_not_finite
from glimpse.optim.clipping import clip_gradients
from glimpse.optim.schedules import Schedule, continue_plateau
from glimpse.seeding import OVER_A_MILLION, OVER_A_THOUSAND, seed_all
from glimpse.views import AVERAGES

if TYPE_CHECKING:
    from glimpse.metrics.scoring import Scoring

MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer, float], Schedule]  # takes optimizer, total steps (or infinity)

# Sizes of images and batches that are compiled. Progressive sizes would reach torch's limit of 8.
MOST_COMPILED = 64


class ImageClassifier(LeanModule):
    """Train and evaluate a network on batches of (B, C, H, W) float images and (B,) int labels.

    In training, labels may also be (B, num_classes) probabilities, as produced by mixup and cutmix.

    Args:
        network: Maps images to logits (B, num_classes).
        spec: The specification of the images.
        loss: Maps logits and labels to a mean over the batch.
        make_optimizer: Builds the optimizer for a network.
        make_schedule: Builds the schedule from the optimizer and the run's total steps.
        seed: The seed of random draws in training, by dropout or an augmentation.
        tta: A name in `AVERAGES`, or None. The final evaluation then also scores the mean of the
            logits over these views of each image. These metrics end in its name, as in acc_flip.
        scoring: Metrics besides loss and accuracy, for validation and test.
        by_class: Whether to measure the recall of each class too, for validation and test.
        stops_at_nonfinite: Whether a loss that is not finite raises an error at once.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ImageSpec,
        *,
        loss: nn.Module,
        make_optimizer: MakeOptimizer,
        make_schedule: MakeSchedule,
        seed: int,
        tta: str | None,
        scoring: "Scoring | None",
        by_class: bool,
        stops_at_nonfinite: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.loss = loss
        self.seed = seed
        self.tta = tta
        self.scoring = scoring
        self.stops_at_nonfinite = stops_at_nonfinite
        self.num_skipped = 0  # steps that were undone, in the whole run
        self._watch = LossWatch()
        self._is_alone = True  # whether no other process takes part in the training
        self._logits_and_loss: Callable[..., tuple[Tensor, Tensor]] = _logits_and_loss
        self.counts = Counts(spec.num_classes, by_class=by_class)
        self._lr: float | Tensor | None = None  # of the latest step
        self._logs_own = False
        self._counted = -1  # the latest training batch of this epoch
        self.has_begun = False  # whether training has started; a resume has then restored all state
        self.validation: dict[str, float] | None = None  # this epoch's val/… metrics, if validated
        self.make_optimizer = make_optimizer
        self._make_schedule = make_schedule
        self._divide: Callable[[Optimizer], Optimizer] = lambda optimizer: optimizer
        self._plateau: Schedule | None = None
        self._resumed: dict[str, Any] | None = None
        self._exact_loss: dict[str, Tensor] = {}  # the loss's part of a checkpoint to resume from

    # One step for all splits --------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) normalised images to logits (B, num_classes)."""
        logits: Tensor = self.network(images)
        return logits

    def _step(self, batch: Batch, split: str, *, is_again: bool = False) -> Tensor:
        logits, loss = self._logits_and_loss(self.network, self.loss, batch.images, batch.labels)
        return self._score(logits, loss, batch, split, is_again=is_again)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch, in fp32 or better."""
        return exact_loss(self.loss, logits, labels)

    def compile_steps(self, mode: str) -> None:
        """Compile the network together with the loss, for training and validation.

        Each size of a batch is compiled by itself, because code for any size is slower. The final
        evaluation is not compiled, because each split would be compiled for a single pass.

        Args:
            mode: One of torch.compile: "default", "reduce-overhead" or "max-autotune".
        """
        torch.compiler.reset()  # the code of earlier runs would count, and keep its memory
        torch._dynamo.config.recompile_limit = MOST_COMPILED
        self._logits_and_loss = torch.compile(_logits_and_loss, mode=mode, dynamic=False)

    def _score(
        self, logits: Tensor, loss: Tensor, batch: Batch, split: str, *, is_again: bool = False
    ) -> Tensor:
        """Count a batch, unless it has been counted, and return the loss to minimise."""
        labels = batch.labels
        divided_by = divisor(self.loss, labels)
        if batch.share and not is_again:
            self.counts.add(split, loss.detach(), logits.detach(), labels, divisor=divided_by)
            if self.scoring and split != "train":
                self.scoring.add(split, logits.detach(), labels)
        if isinstance(divided_by, Tensor) and self.trainer.training and self.trainer.world_size > 1:
            return loss * self._weighted_share(batch, divided_by)
        return loss if batch.share == 1 else loss * batch.share

    def _weighted_share(self, batch: Batch, divided_by: Tensor) -> Tensor:
        """The weight of this process's mean if classes have weights.

        It is the sum of the labels' weights here, divided by its mean over all processes.
        """
        mine = divided_by if batch.share else torch.zeros_like(divided_by)
        return mine * self.trainer.world_size / summed(mine.clone())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self._lr = (
            rate.clone() if isinstance(rate, Tensor) else rate
        )  # schedules change it in place
        is_again = batch_idx == self._counted  # some optimizers evaluate a batch several times
        self._counted = batch_idx
        loss = self._step(batch, "train", is_again=is_again)
        if self.stops_at_nonfinite:
            self._watch.add(loss.detach(), batch_idx)
            if self._is_alone:
                self._require_none_failed(batch_idx, batch.images)
        return loss

    def require_finite_losses(self) -> None:
        """Raise the error if a loss of this epoch was not finite in any of the processes.

        All processes call this together, once a second, before they save, and where an epoch or
        the training in it ends. A process alone has raised it at that batch, or does so here.

        Raises:
            DivergedError: a loss was not finite.
        """
        if not self.stops_at_nonfinite:
            return
        self._watch.finish()
        if not self._is_alone:
            self._watch.agree(self.device)
        self._require_none_failed()

    def _require_none_failed(self, latest: int | None = None, images: Tensor | None = None) -> None:
        """Raise the error for the first batch whose loss is not finite.

        Args:
            latest: The number of a batch after which the weights have not changed yet.
            images: The images of that batch.
        """
        if self._watch.failed is not None:
            number, loss = self._watch.failed
            what = f"train/loss at epoch {self.current_epoch + 1}, batch {number + 1}"
            self._require_finite(loss, what, images if number == latest else None)

    def step_ahead(self, batch: Batch) -> None:
        """Train a batch of the training loader as Lightning does, but without its hooks.

        steps_ahead.py calls this.
        """
        trainer = self.trainer
        data = data_of(trainer)
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.transfer_batch_to_device(batch, self.device, 0)
        batch = data.on_after_batch_transfer(batch, 0)
        with step_context(trainer):
            loss = self.training_step(batch, next_batch(trainer))
        [optimizer] = trainer.optimizers
        for group in optimizer.param_groups:  # as optimizer.zero_grad() does, which takes longer
            for parameter in group["params"]:
                parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        self.configure_gradient_clipping(
            optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        )
        optimizer.step()
        for schedule in trainer.lr_scheduler_configs:
            if schedule.interval == "step":
                assert isinstance(schedule.scheduler, LRScheduler)
                schedule.scheduler.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        # A network may work in place, and the views need the images.
        logits = self(batch.images.clone() if self.tta else batch.images)
        for suffix in self._suffixes:
            answer = AVERAGES[suffix[1:]](self, batch.images, logits) if suffix else logits
            loss = self.loss_of(answer, batch.labels)
            self._score(answer, loss, batch, self._scored_split + suffix)

    # Metrics ------------------------------------------------------------------------------------

    def log(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Log a number of a callback. Lightning would mix one that has the name of ours with ours.

        Raises:
            UserError: every run measures this name.
        """
        ends = {own.partition("/")[2] for own in self.logged_names}
        measured = {f"{split}/{end}" for split in ("train", "val", "test") for end in ends} | {"lr"}
        if not self._logs_own and name in measured:
            raise UserError(
                f"a callback logs {name}, which every run measures itself: give it another name, such as "
                f"mine/{name.rpartition('/')[2]}"
            )
        super().log(name, *args, **kwargs)

    def _log_own(self, metrics: Mapping[str, float], **kwargs: Any) -> None:
        self._logs_own = True
        try:
            self.log_dict(metrics, **kwargs)
        finally:
            self._logs_own = False

    def _finish(self, split: str, suffix: str = "") -> dict[str, float]:
        """The split's metrics over all processes; a suffix such as "_flip" selects views."""
        metrics = self.counts.finish(split + suffix)
        if split == "train" and not self.counts.num_scored[split] and self.num_skipped:
            raise DivergedError(
                f"no step of epoch {self.current_epoch + 1} was finite: {DIVERGED}; {LOWER_RATE}"
            )
        self._require_finite(metrics["loss"], f"{split}/loss at epoch {self.current_epoch + 1}")
        if self.scoring and split != "train":
            metrics |= self.scoring.finish(split + suffix)
        return {f"{split}/{name}{suffix}": value for name, value in metrics.items()}

    def _start(self, split: str, suffix: str = "") -> None:
        self.counts.start(split + suffix, self.device)
        if self.scoring and split != "train":
            self.scoring.start(split + suffix, self.device)

    @property
    def logged_names(self) -> list[str]:
        """The names of the metrics that training and validation log, for the monitor."""
        top5 = ["top5"] if self.counts.has_top5 else []
        more = self.scoring.names if self.scoring else []
        of_val = [f"val/{name}" for name in ("loss", "acc", *top5, *more)]
        return [*of_val, "train/loss", "train/acc"]

    @property
    def _scored_split(self) -> str:
        return data_of(self.trainer).batches.scored_split

    @property
    def _suffixes(self) -> tuple[str, ...]:
        """The ends of the names of the current split's metrics, in the final evaluation."""
        return ("", f"_{self.tta}") if self.tta and self._scored_split != "train" else ("",)

    def _require_finite(self, loss: float, what: str, images: Tensor | None = None) -> None:
        if not math.isfinite(loss):
            where = f": {where_not_finite(self.network, images)}" if images is not None else ""
            rate = (
                self.trainer.optimizers[0].param_groups[0]["lr"] if self.trainer.optimizers else 0
            )
            raise DivergedError(
                f"{what} is {loss}: {DIVERGED} (lr {rate:.3g}){where}; {LOWER_RATE}, "
                "or trainer.gradient_clip_val=1"
            )

    def on_fit_start(self) -> None:
        keep_exact(self.loss)
        if self._exact_loss:
            self.loss.load_state_dict(self._exact_loss)

    def on_train_start(self) -> None:
        self.has_begun = True  # Lightning calls this after the callbacks'
        self._is_alone = self.trainer.world_size == 1

    def on_train_epoch_start(self) -> None:
        # Reseed each epoch, so that a resumed run makes the same draws as an uninterrupted one.
        of_epoch = self.seed * OVER_A_MILLION + self.current_epoch
        seed_all(of_epoch * OVER_A_THOUSAND + self.global_rank)
        self.counts.start("train", self.device)
        self._counted = -1
        self._watch = LossWatch()
        self.validation = None

    def on_train_epoch_end(self) -> None:
        self.require_finite_losses()
        metrics = self._finish("train")
        known = metrics | (self.validation or {})
        assert self._lr is not None
        metrics["lr"] = float(self._lr)
        self._log_own(metrics)
        if self._plateau and self._plateau.monitor in known:
            assert isinstance(self._plateau.scheduler, ReduceLROnPlateau)
            self._plateau.scheduler.step(known[self._plateau.monitor])

    def on_validation_epoch_start(self) -> None:
        self.require_finite_losses()
        self._start("val")

    def on_validation_epoch_end(self) -> None:
        metrics = self._finish("val")
        self._log_own(metrics)
        # Round to fp32, as Lightning does with logged metrics. An undefined metric has no value.
        self.validation = {
            name: torch.tensor(value).item()
            for name, value in metrics.items()
            if math.isfinite(value)
        }

    def on_test_epoch_start(self) -> None:
        keep_exact(self.loss)
        for suffix in self._suffixes:
            self._start(self._scored_split, suffix)

    def on_test_epoch_end(self) -> None:
        for suffix in self._suffixes:
            self._log_own(self._finish(self._scored_split, suffix), logger=False)

    # Optimization -------------------------------------------------------------------------------

    def new_optimizer(self) -> Optimizer:
        """Build an optimizer for the current network, with the run's parameter groups."""
        return self._divide(self.make_optimizer(self.network))

    def new_schedule(self, optimizer: Optimizer) -> Schedule:
        """Build the schedule of an optimizer for the length of the run."""
        return self._make_schedule(optimizer, self.trainer.estimated_stepping_batches)

    def divide_optimizer(self, divide: Callable[[Optimizer], Optimizer]) -> None:
        """Apply `divide` to the parameter groups of every optimizer built from now on."""
        self._divide = divide

    def use_schedule(self, make_schedule: MakeSchedule) -> None:
        """Build every schedule with this function from now on."""
        self._make_schedule = make_schedule

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule.

        Lightning steps the schedules that advance per batch or per epoch. A plateau schedule is
        stepped in `on_train_epoch_end`, so that the checkpoint saved after it includes its state.
        """
        optimizer = self.new_optimizer()
        schedule = self.new_schedule(optimizer)
        if schedule.interval == "validation":
            if schedule.monitor not in self.logged_names:
                raise UserError(
                    f"scheduler: its monitor {schedule.monitor} is not a metric of this run, expected one of "
                    f"{', '.join(self.logged_names)}"
                )
            self._plateau = schedule
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule.scheduler, "interval": schedule.interval},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients for every optimizer in every precision.

        Lightning 2.6 rejects fused optimizers in mixed precision, even in bf16, which needs no
        gradient scaling. If a strategy shards the gradients across processes, only the strategy
        can clip them.
        """
        if not gradient_clip_val:
            return
        if not isinstance(self.trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
            return
        by_value = gradient_clip_algorithm == "value"
        clip_gradients(
            optimizer, gradient_clip_val, by_value=by_value, scaler=loss_scaler(self.trainer)
        )

    def before_step(self) -> dict[str, Any]:
        """The state that a step changes besides parameters and optimizer, for `take_back_step`."""
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        return {"buffers": buffers, "counts": self.counts.state_dict()}

    def take_back_step(self, before: Mapping[str, Any]) -> None:
        """Restore what `before_step` returned, and count the step as skipped."""
        for name, buffer in self.network.named_buffers():
            buffer.copy_(before["buffers"][name])
        self.counts.load_state_dict([before["counts"]], self.device)
        self.num_skipped += 1

    # Checkpoints --------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state on which the rest of the epoch depends, besides Lightning's.

        This is each process's sums of the epoch so far, its gradients if they wait for later
        batches, the last validation, the last learning rate, and the state of a plateau schedule.
        """
        self.require_finite_losses()
        mine = self.counts.state_dict()
        if is_accumulating(self.trainer):
            mine["gradients"] = {
                name: parameter.grad.cpu()
                for name, parameter in self.named_parameters()
                if parameter.grad is not None
            }
        first, *others = of_all_processes(mine)
        checkpoint["classifier"] = first | {
            "others": others,
            "validation": self.validation,
            "plateau": self._plateau.scheduler.state_dict() if self._plateau else None,
            "lr": None if self._lr is None else float(self._lr),
            "num_skipped": self.num_skipped,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep this state until `go_on` is called, when the device and the schedule exist.

        Lightning loads the weights next, and converts the network to a precision such as 64-true only
        later. Loading would then round the weights to fp32, so the network is converted here.
        """
        self.trainer.precision_plugin.convert_module(self)
        self._resumed = checkpoint["classifier"]
        trained = checkpoint.get("training_weights", checkpoint["state_dict"])
        self._exact_loss = {
            name.removeprefix("loss."): tensor
            for name, tensor in trained.items()
            if name.startswith("loss.")
        }
        self.num_skipped = checkpoint["classifier"]["num_skipped"]

    def go_on(self, *, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Restore the state of the checkpoint when a resumed training starts.

        The scheduler's configuration was `before` in the checkpoint, and is `now` in this run.
        """
        saved, self._resumed = self._resumed, None
        assert saved is not None
        self.validation, self._lr = saved["validation"], saved["lr"]
        if self._plateau and saved["plateau"]:
            assert isinstance(self._plateau.scheduler, ReduceLROnPlateau)
            continue_plateau(self._plateau.scheduler, saved["plateau"], before=before, now=now)
        of_all = [saved, *saved["others"]]
        is_same_number = len(of_all) == self.trainer.world_size  # of processes
        if is_same_number:
            mine = [of_all[self.global_rank]]
        else:
            mine = of_all if self.global_rank == 0 else []
        if mine and mine[0]["train_totals"] is not None:
            self.counts.load_state_dict(mine, self.device)
        else:
            self.counts.start("train", self.device)
        if is_same_number:  # gradients of other processes cannot be divided among these
            gradients = mine[0].get("gradients", {})
            for name, parameter in self.named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device)


def _logits_and_loss(
    network: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The part of a step that `compile_steps` compiles, with the backward pass derived from it."""
    logits = network(images)
    return logits, exact_loss(loss, logits, labels)
