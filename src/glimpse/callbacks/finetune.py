"""Fine-tuning: first the head alone, then all layers, deeper ones faster than earlier ones.

Source: Howard and Ruder 2018, Universal Language Model Fine-tuning, sections 3.2 and 3.3 (gradual
unfreezing, discriminative rates), with the geometric rates of fastai's `slice(lr / 100, lr)`. While
the backbone is frozen it is in evaluation mode: no batch norm statistics move. All parameters belong
to the optimizer from the start, and those that are frozen have no gradient, which optimizers pass
over, decay and momentum too. What is frozen follows from the epoch alone, so that a resumed run goes
on as an unbroken one; Lightning's BackboneFinetuning would freeze again.

Differs from fastai's fine_tune: one schedule spans both phases, in place of one for each, and batch
norm keeps the statistics of the weights, which fastai moves from the first step.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from glimpse.classifier import ImageClassifier
from glimpse.errors import UserError
from glimpse.models.pretrained import Pretrained

GROUPS = 4  # of the backbone's parameters, by depth; each has a rate
HEAD = GROUPS


class Finetune(Callback):
    """Train the head for `frozen_epochs`, then everything.

    Args:
        frozen_epochs: in which only the head trains.
        backbone_factor: the rate of the backbone as a part of the head's, which has everything to
            learn where the backbone has nearly nothing.
        depth_factor: the rate of the first layers as a part of the backbone's; the groups between
            have rates in geometric progression. 1: the same for all.
        move_statistics: whether batch norm's statistics follow the data after the frozen epochs.
            The head has learnt with those of the weights, and those of few images are worse.

    Raises:
        UserError: from `setup`, where several processes train.
    """

    def __init__(
        self,
        *,
        frozen_epochs: int = 1,
        backbone_factor: float = 1.0,
        depth_factor: float = 0.01,
        move_statistics: bool = False,
    ) -> None:
        self.frozen_epochs = frozen_epochs
        self.backbone_factor = backbone_factor
        self.depth_factor = depth_factor
        self.move_statistics = move_statistics
        self._frozen: bool | None = None  # as the last batch was; None before the first

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before the optimizer is made: give it a rate for each depth."""
        if stage != "fit":
            return
        self.backbone = require_one_process(trainer, pl_module, "finetune").backbone
        assert isinstance(pl_module, ImageClassifier)
        pl_module.divide_optimizer(self._by_depth)

    def _by_depth(self, optimizer: Optimizer) -> Optimizer:
        """Divide the optimizer's groups by depth: the head first, whose rate is the one logged."""
        body = list(self.backbone.parameters())
        depth = {parameter: i * GROUPS // len(body) for i, parameter in enumerate(body)}
        factors = {HEAD: 1.0}
        for level in reversed(range(GROUPS)):
            from_the_last = 1 - level / (GROUPS - 1)
            factors[level] = self.backbone_factor * self.depth_factor**from_the_last
        groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            for level, factor in factors.items():
                parameters = [p for p in group["params"] if depth.get(p, HEAD) == level]
                changed = group | {"params": parameters, "lr": group["lr"] * factor}
                groups += [changed] if parameters else []
        optimizer.param_groups[:] = groups
        return optimizer

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        frozen = trainer.current_epoch < self.frozen_epochs
        if self._frozen is not frozen:
            self._frozen = frozen
            self.backbone.train(not frozen).requires_grad_(not frozen)
            for layer in self.backbone.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm) and not self.move_statistics:
                    layer.eval()


def require_one_process(
    trainer: pl.Trainer, classifier: pl.LightningModule, callback: str
) -> Pretrained:
    """The network, where freezing it works; that it has pretrained weights is known from the
    configuration.

    Raises:
        UserError: several processes train it.
    """
    network = classifier.network
    assert isinstance(network, Pretrained)
    if trainer.world_size > 1:  # DDP never averages gradients of what was frozen when it began
        raise UserError(
            f"callbacks=[{callback}] works in one process, not in {trainer.world_size}: "
            "type trainer.devices=1"
        )
    return network
