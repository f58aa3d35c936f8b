"""ImageClassifier: the one LightningModule. A network, a loss, and one step for every split.

Loss and correct answers are counted on the device and read once an epoch; logging each step would
cost more than the step of a small network. Everything in its checkpoint is plain data.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from glimpse.data.loader import Batch, BatchLoader
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.losses import exact_loss
from glimpse.optim.clipping import clip_gradients
from glimpse.optim.schedules import Schedule
from glimpse.ranks import TOP_K, ranks
from glimpse.seeding import restore, seed_all, state_of_generators

CHECK_EVERY = 50  # steps between looks for a non-finite loss where looking stalls the device

MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer, float], Schedule]  # optimizer, total steps (or infinity)


class DivergedError(UserError):
    """The loss is not a finite number any more."""


class ImageClassifier(pl.LightningModule):
    """Train and measure a network on batches of (B, C, H, W) float images and (B,) int labels.

    In training, labels may be (B, num_classes) probabilities, as mixup and cutmix make them.

    Args:
        network: images to logits (B, num_classes).
        spec: of the images.
        loss: logits and labels to a mean over the batch.
        make_optimizer: from the network.
        make_schedule: from the optimizer and the run's total steps.
        seed: of what a network or an augmentation draws in training, such as dropout.
        config: the run's resolved configuration as plain data, for checkpoints.
        fingerprint: of the data, for checkpoints.
        tta: "flip": in the final measurement, score the mean of the logits of each image and its
            mirror image as well, as metrics that end in _flip (Jordan 2024, 94% on CIFAR-10 in 3.29
            Seconds on a Single GPU).
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
        config: Mapping[str, Any],
        fingerprint: str,
        tta: str | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.loss = loss
        self.make_optimizer = make_optimizer
        self.make_schedule = make_schedule
        self.seed = seed
        self.config = config
        self.fingerprint = fingerprint
        self.tta = tta
        self._totals: dict[str, Tensor] = {}
        self._num_images: dict[str, int] = {}
        self.validated = False  # whether val/… are of this epoch
        self._plateau: Schedule | None = None
        self._resumed: dict[str, Any] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the hook that it is in 40 times a step: not through torch's search for
        # parameters and submodules, which takes three times as long.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # One step for all splits --------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images to logits (B, num_classes)."""
        logits: Tensor = self.network(images)
        return logits

    def _step(self, batch: Batch, split: str) -> Tensor:
        return self._score(self(batch.images), batch.labels, split)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch, in fp32 or better."""
        return exact_loss(self.loss, logits, labels)

    def _score(self, logits: Tensor, labels: Tensor, split: str) -> Tensor:
        loss = self.loss_of(logits, labels)
        self._count(split, loss.detach(), logits.detach(), labels)
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self._step(batch, "train")
        # Under DDP every process must stop at once: there the epoch's totals tell.
        if self.trainer.world_size == 1 and (
            loss.device.type == "cpu" or batch_idx % CHECK_EVERY == 0
        ):
            self._require_finite(
                loss.item(), f"train/loss at epoch {self.current_epoch + 1}, batch {batch_idx + 1}"
            )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self(batch.images)
        self._score(logits, batch.labels, self._scored_split)
        if self._scores_flip:
            both = (logits + self(batch.images.flip(3))) / 2
            self._score(both, batch.labels, f"{self._scored_split}_flip")

    # Counting -----------------------------------------------------------------------------------

    def _count(self, split: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch to its split's totals: summed loss, correct, correct in top 5; and images.

        A mixed image counts for the class that has the largest share of it.
        """
        if labels.is_floating_point():
            labels = labels.argmax(1)
        size = len(labels)
        if split != "train" and self._has_top5:
            places = ranks(logits, labels)
            correct, in_top = (places == 1).sum(), (places <= TOP_K).sum()
        else:  # the same rule, in one pass
            correct = in_top = (logits.float().argmax(1) == labels).sum()
        self._totals[split] += torch.stack((loss * size, correct, in_top))
        self._num_images[split] += size

    def _start_counting(self, split: str) -> None:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64  # which MPS lacks
        self._totals[split] = torch.zeros(3, dtype=dtype, device=self.device)
        self._num_images[split] = 0

    def _finish_counting(self, split: str, suffix: str = "") -> dict[str, float]:
        """The split's metrics over all processes; with the suffix "_flip", those of test-time flip."""
        totals, num_images = self._totals.pop(split + suffix), self._num_images.pop(split + suffix)
        totals = torch.cat((totals, totals.new_tensor([num_images])))
        totals = self.trainer.strategy.reduce(totals, reduce_op="sum")
        assert isinstance(totals, Tensor)
        loss, correct, in_top, size = totals.tolist()
        size = max(size, 1)
        self._require_finite(loss, f"{split}/loss at epoch {self.current_epoch + 1}")
        metrics = {"loss": loss / size, "acc": correct / size}
        if split != "train" and self._has_top5:
            metrics["top5"] = in_top / size
        return {f"{split}/{name}{suffix}": value for name, value in metrics.items()}

    @property
    def _has_top5(self) -> bool:
        return self.spec.num_classes > TOP_K

    @property
    def _scored_split(self) -> str:
        return str(self.trainer.datamodule.scored_split)  # type: ignore[attr-defined]

    @property
    def _scores_flip(self) -> bool:
        return self.tta == "flip" and self._scored_split != "train"

    def _require_finite(self, loss: float, what: str) -> None:
        if not math.isfinite(loss):
            rate = (
                self.trainer.optimizers[0].param_groups[0]["lr"] if self.trainer.optimizers else 0
            )
            raise DivergedError(
                f"{what} is {loss}: the training has diverged (lr {rate:.3g}); "
                "type a lower optimizer.lr (task=lr_find suggests one), "
                "or trainer.gradient_clip_val=1"
            )

    def on_train_epoch_start(self) -> None:
        # From here a resumed run draws what an unbroken one draws.
        seed_all((self.seed * 1_000_003 + self.current_epoch) * 1_009 + self.global_rank)
        self._start_counting("train")
        self.validated = False

    def on_train_epoch_end(self) -> None:
        metrics = self._finish_counting("train")
        metrics["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict(metrics)
        if self._plateau and self.validated:
            assert isinstance(self._plateau.scheduler, ReduceLROnPlateau)
            self._plateau.scheduler.step(self.trainer.callback_metrics["val/loss"].item())

    def on_validation_epoch_start(self) -> None:
        self._start_counting("val")

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self._finish_counting("val"))
        self.validated = True

    def on_test_epoch_start(self) -> None:
        self._start_counting(self._scored_split)
        if self._scores_flip:
            self._start_counting(f"{self._scored_split}_flip")

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._finish_counting(self._scored_split), logger=False)
        if self._scores_flip:
            self.log_dict(self._finish_counting(self._scored_split, "_flip"), logger=False)

    # Optimization -------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Lightning steps the schedules of batches and epochs; a plateau waits for its metric here,
        where the checkpoint that follows holds its state."""
        optimizer = self.make_optimizer(self.network)
        schedule = self.make_schedule(optimizer, self.trainer.estimated_stepping_batches)
        if schedule.interval == "validation":
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
        """Clip for every optimizer in every precision.

        Lightning 2.6 refuses fused optimizers in mixed precision, also in bf16, where nothing is
        scaled. Where a strategy divides the gradients among processes, it alone can clip them.
        """
        if not gradient_clip_val:
            return
        if not isinstance(self.trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )
            return
        plugin = self.trainer.precision_plugin
        clip_gradients(
            optimizer,
            gradient_clip_val,
            by_value=gradient_clip_algorithm == "value",
            scaler=plugin.scaler if isinstance(plugin, MixedPrecision) else None,
        )

    # Checkpoints --------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not save: configuration, spec, counts and random state."""
        checkpoint["glimpse"] = {
            "config": dict(self.config),
            "spec": self.spec.as_dict(),
            "stored_size": list(self.trainer.datamodule.stored_size),  # type: ignore[attr-defined]
            "fingerprint": self.fingerprint,
            "train_totals": self._totals["train"].cpu() if "train" in self._totals else None,
            "train_images": self._num_images.get("train", 0),
            "next_batch": self._train_loader.state_dict(),
            "plateau": self._plateau.scheduler.state_dict() if self._plateau else None,
            "random_state": state_of_generators(self.device),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what Lightning does not restore for the first step; resume.py has checked that it fits."""
        self._resumed = checkpoint["glimpse"]

    def on_train_start(self) -> None:
        """After a resume, go on counting and drawing where the checkpoint was written."""
        saved, self._resumed = self._resumed, None
        if saved is None:
            return
        # Lightning restores a loader's place only if nobody has asked it for the number of steps.
        self._train_loader.load_state_dict(saved["next_batch"])
        self._take_new_settings(saved["config"])
        if self._plateau and saved["plateau"]:
            self._plateau.scheduler.load_state_dict(saved["plateau"])
        if self.global_rank > 0:  # the checkpoint holds the first process's counts and draws
            self._start_counting("train")
            seed_all(self.seed * 1_009 + self.global_step * 1_000_003 + self.global_rank)
            return
        if saved["train_totals"] is not None:
            self._totals["train"] = saved["train_totals"].to(self.device)
            self._num_images["train"] = saved["train_images"]
        restore(saved["random_state"], self.device)

    def _take_new_settings(self, before: Mapping[str, Any]) -> None:
        """A resumed run's new optimizer and scheduler settings, in place of the checkpoint's."""
        groups = self.trainer.optimizers[0].param_groups
        fresh = self.make_optimizer(self.network).param_groups
        if before["optimizer"] != self.config["optimizer"]:
            for group, new in zip(groups, fresh, strict=True):
                group |= {k: v for k, v in new.items() if k != "params"} | {"initial_lr": new["lr"]}
        for schedule in self.trainer.lr_scheduler_configs:
            scheduler = schedule.scheduler
            assert isinstance(scheduler, LambdaLR)
            if before["scheduler"] != self.config["scheduler"]:
                per_step = schedule.interval == "step"
                scheduler.last_epoch = self.global_step if per_step else self.current_epoch
            scheduler.base_lrs = [new["lr"] for new in fresh]
            factors = zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, rate, factor in factors:
                group["lr"] = rate * factor(scheduler.last_epoch)

    @property
    def _train_loader(self) -> BatchLoader:
        loader = self.trainer.train_dataloader
        assert isinstance(loader, BatchLoader)
        return loader
