"""`on_nonfinite=skip`: skip steps whose loss or gradients are not finite, up to a limit.

A skipped step leaves the parameters, the optimizer's state, the network's buffers (batch norm's
statistics), the average of callbacks=[ema] and the sums of train/loss and train/acc unchanged. The
schedule and the random generators advance as after any step. With trainer.accumulate_grad_batches,
all batches of the step are skipped.

Only the gradients are checked; a loss that is not finite turns them into NaN. Under DDP they are
the same in all processes, so that all skip the same steps; in fp16, the processes agree on whether
a loss was not finite. The check makes a GPU wait after every step.

Left out: fp16 gradients that overflow while the loss is finite. The loss scaler skips those steps
itself; this is how it finds its scale.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from glimpse.classifier import ImageClassifier
from glimpse.console import console
from glimpse.distributed.gather import of_all_processes, summed
from glimpse.errors import DIVERGED, LOWER_RATE, DivergedError
from glimpse.lightning_compat import loss_scaler

KEY = "before_step"  # in a checkpoint that is saved between the batches of a step


class SkipNonfinite(Callback):
    """Skip up to `most` steps that are not finite.

    Raises:
        DivergedError: from a step, if it exceeds the limit.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._before: dict[str, Any] | None = None  # the classifier before the current step
        self._losses_are_finite: Tensor | None = None
        self._batch_idx = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch_idx = batch_idx
        if batch_idx % trainer.accumulate_grad_batches == 0:
            assert isinstance(pl_module, ImageClassifier)
            self._before = pl_module.before_step()
            self._losses_are_finite = None

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Make all gradients NaN if the loss is not finite. Otherwise they keep their bits."""
        is_finite = loss.detach().isfinite()
        loss.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: torch.where(is_finite, gradient, torch.nan)
        )
        so_far = self._losses_are_finite
        self._losses_are_finite = is_finite if so_far is None else so_far & is_finite

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Undo the step if its gradients are not finite, and remove the gradients, so that the
        optimizer skips every parameter."""
        assert isinstance(pl_module, ImageClassifier)
        before, self._before = self._before, None
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if torch.nn.utils.get_total_norm(gradients, norm_type=torch.inf).isfinite():
            return
        what = self._what_is_not_finite(pl_module)
        if loss_scaler(trainer) is not None:
            num_broken = torch.tensor(float(what == "the loss"), device=pl_module.device)
            if not summed(num_broken):  # all processes come here, as they have the same gradients
                return
            what = "the loss"
        else:
            for parameter in pl_module.parameters():
                parameter.grad = None
        assert before is not None
        pl_module.take_back_step(before)
        where = f"epoch {trainer.current_epoch + 1}, batch {self._batch_idx + 1}"
        rate = optimizer.param_groups[0]["lr"]
        if pl_module.num_skipped > self.most:
            raise DivergedError(
                f"{where}: {what} is not finite, after {self.most} skipped steps: {DIVERGED} "
                f"(lr {rate:.3g}); {LOWER_RATE}, "
                "trainer.gradient_clip_val=1, or a higher max_nonfinite_steps"
            )
        console.print(
            f"{where}: {what} is not finite (lr {rate:.3g}); skipped this step, "
            f"{pl_module.num_skipped} of at most {self.most}"
        )

    def _what_is_not_finite(self, classifier: ImageClassifier) -> str:
        """Name the loss, or else the first gradient in the backward pass that is not finite."""
        if self._losses_are_finite is not None and not self._losses_are_finite:
            return "the loss"
        named = reversed(list(classifier.network.named_parameters()))
        broken = (n for n, p in named if p.grad is not None and not p.grad.isfinite().all())
        return f"the gradient of {next(broken, 'a parameter')}"

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._before is not None:
            checkpoint[KEY] = of_all_processes(self._before)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        of_all = checkpoint.get(KEY, [])
        if len(of_all) == trainer.world_size:
            self._before = of_all[trainer.global_rank]
