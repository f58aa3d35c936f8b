"""Fine-tuning: train the head first, then all layers, with higher rates for deeper layers.

Source: Howard and Ruder 2018, Universal Language Model Fine-tuning, sections 3.2 and 3.3
(discriminative rates, gradual unfreezing). The rates are geometric, as in fastai's
`slice(lr / 100, lr)`. The frozen backbone is in evaluation mode, so its batch norm statistics do
not change. The optimizer holds all parameters from the start. Frozen parameters have no gradient,
so the optimizer skips them entirely, including weight decay and momentum. The epoch alone
determines what is frozen, so a resumed run continues like an uninterrupted one; Lightning's
BackboneFinetuning would freeze again.

Differences from fastai's fine_tune: one schedule spans both phases instead of one per phase, and
batch norm keeps the statistics of the pretrained weights, which fastai updates from the first step.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from glimpse.classifier import ImageClassifier
from glimpse.console import console
from glimpse.errors import UserError
from glimpse.models.pretrained import Pretrained

GROUPS = 4  # the backbone's parameters are divided by depth into this many groups
HEAD = GROUPS


class Finetune(Callback):
    """Train the head for `frozen_epochs`, then everything.

    Args:
        frozen_epochs: The number of epochs in which only the head trains.
        backbone_factor: The ratio of the backbone's rate to the head's. The backbone has much less
            to learn than the head.
        depth_factor: The ratio of the first layers' rate to the last backbone layers' rate. The
            groups in between have rates in geometric progression. With 1, all rates are equal.
        move_statistics: Whether batch norm's statistics are updated after the frozen epochs. The
            head has been trained with the pretrained statistics, and statistics of few images are
            worse.

    Raises:
        UserError: from `setup`, if several processes train.
    """

    sees_chunks = True

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
        self._frozen: bool | None = None  # whether the last batch was frozen; None before the first

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the optimizer, which is built later, a rate for each depth."""
        if stage != "fit":
            return
        self.backbone = require_one_process(trainer, pl_module, "finetune").backbone
        assert isinstance(pl_module, ImageClassifier)
        pl_module.divide_optimizer(self._by_depth)
        if 0 <= (trainer.max_epochs or -1) <= self.frozen_epochs:
            console.print(
                f"callbacks.finetune.frozen_epochs={self.frozen_epochs} of {trainer.max_epochs} epochs: only "
                "the last layer is trained"
            )

    def _by_depth(self, optimizer: Optimizer) -> Optimizer:
        """Divide the optimizer's groups by depth. The head comes first, as its rate is logged."""
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

    def relative_cost(self, epoch: int) -> float:
        """What a step costs, in proportion to a whole one: a frozen backbone has no backward pass."""
        return 1 / 3 if epoch < self.frozen_epochs else 1.0

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
    """Return the network if one process trains it, as freezing requires.

    The check of the configuration has already ensured that the network has pretrained weights.

    Raises:
        UserError: several processes train it.
    """
    network = classifier.network
    assert isinstance(network, Pretrained)
    if trainer.world_size > 1:  # DDP never averages gradients of parameters frozen at its start
        raise UserError(
            f"callbacks=[{callback}] requires one process, but there are {trainer.world_size}: "
            "type trainer.devices=1"
        )
    return network
