"""`callbacks=[hard_examples]`: train on the hardest part of each batch, which a small network picks.

Source: airbench96_faster of cifar10-airbench (K. Jordan 2024); Coleman et al. 2020, Selection via
Proxy. The proxy is a small whitened net. It sees every batch, keeps the images with the highest
cross-entropy, and takes a step on them. The network then trains on the kept images only. The
proxy's step costs little, so most of the time goes into images that still teach something.

How ours differs: the source trains its proxy in a run of its own, which comes first and draws the
same batches. Here both train side by side. The proxy has no label smoothing, and it sees images
of 16 to 32 pixels a side, whatever the size of the network's.
"""

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from glimpse.classifier import ImageClassifier
from glimpse.console import console
from glimpse.data.loader import Batch
from glimpse.data.module import data_of
from glimpse.distributed.gather import summed
from glimpse.errors import DIVERGED, LOWER_RATE, DivergedError
from glimpse.models.whitened_net import WhitenedNet
from glimpse.nonfinite import weight_not_finite

FEWEST_PIXELS, MOST_PIXELS = 16, 32  # of a side of the images that the proxy sees
WIDTHS = (32, 64, 64)  # the source's


class HardExamples(Callback):
    """Train on the hardest part of each batch.

    The proxy uses the run's optimizer, with the current learning rate. Its state is part of each
    checkpoint, so a resumed run keeps the same images. Each of several processes keeps the hardest
    part of its own batch; their proxies stay the same, because they average their gradients.

    Args:
        fraction: The part of each batch to train on, above 0 and at most 1.

    Raises:
        DivergedError: from the end of an epoch, if the proxy has diverged.
    """

    def __init__(self, *, fraction: float) -> None:
        self.fraction = fraction
        self.optimizer: Optimizer | None = None  # the proxy's, once training has begun
        self._resumed: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Build the proxy from the run's seed."""
        if stage != "fit":
            return
        assert isinstance(pl_module, ImageClassifier)
        self.classifier = pl_module
        self.trainer = trainer
        spec = pl_module.spec
        seen = replace(spec, height=_side(spec.height), width=_side(spec.width))
        with torch.random.fork_rng([]):
            torch.manual_seed(pl_module.seed)
            self.proxy = WhitenedNet(seen, widths=WIDTHS)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the proxy look at training images, or restore it, and choose images from now on."""
        data = data_of(trainer)
        if not self._resumed:
            self.proxy.look_at(_resized(data.batches.some_training_images()))
            self.proxy.load_state_dict(trainer.strategy.broadcast(self.proxy.state_dict()))
        self.proxy.to(self.classifier.device)
        self.optimizer = self.classifier.make_optimizer(self.proxy)
        if self._resumed:
            self.proxy.load_state_dict(self._resumed["proxy"])
            settings = self.optimizer.state_dict()["param_groups"]  # those of the resumed run
            self.optimizer.load_state_dict(self._resumed["optimizer"] | {"param_groups": settings})
        size = data.batches.batch_size
        console.print(
            f"trains on the {self._num_kept(size):,} hardest of each {size:,} images, which a proxy network of "
            f"{sum(p.numel() for p in self.proxy.parameters()):,} parameters chooses"
        )
        data.batches.train_on(self._hardest)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise an error if the proxy has diverged: it would choose images at random, unnoticed."""
        if name := weight_not_finite(self.proxy):
            raise DivergedError(
                f"callbacks=[hard_examples]: {name} of the proxy network is not finite in epoch "
                f"{trainer.current_epoch + 1}: {DIVERGED}; {LOWER_RATE}"
            )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        data_of(trainer).batches.train_on(None)

    def _num_kept(self, size: int) -> int:
        """Of this many images. Batch norm needs two, and the last batch of an epoch may be small."""
        return min(size, max(2, round(size * self.fraction)))

    @torch.enable_grad()
    def _hardest(self, batch: Batch) -> Batch:
        """Train the proxy on a batch, and return the images that it kept, in their order."""
        images, labels = _resized(batch.images), batch.labels
        kept: list[Tensor] = []
        optimizer = self.optimizer
        assert optimizer is not None
        self._follow_rates(optimizer)

        def closure() -> Tensor:
            optimizer.zero_grad()
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self._is_in_half):
                logits = self.proxy(images)
            losses = F.cross_entropy(logits.float(), labels, reduction="none")
            hardest = losses.topk(self._num_kept(len(labels)), sorted=False).indices
            kept.append(hardest.sort().values)
            # Weighted, so that the mean over processes is the mean over images.
            loss = losses[hardest].mean() * batch.share
            loss.backward()  # type: ignore[no-untyped-call]
            if self.trainer.world_size > 1:
                self._average_gradients()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        first = kept[0]  # some optimizers evaluate the loss several times
        return batch._replace(
            images=batch.images[first], labels=labels[first], indices=batch.indices[first]
        )

    def _average_gradients(self) -> None:
        """Replace the proxy's gradients by their means over the processes, in one message."""
        gradients = [
            weights.grad for weights in self.proxy.parameters() if weights.grad is not None
        ]
        means = summed(torch.cat([g.flatten() for g in gradients])) / self.trainer.world_size
        parts = torch.split(means, [g.numel() for g in gradients])
        for gradient, mean in zip(gradients, parts, strict=True):
            gradient.copy_(mean.view_as(gradient))

    @property
    def _is_in_half(self) -> bool:
        return "16" in str(self.trainer.precision)

    def _follow_rates(self, optimizer: Optimizer) -> None:
        """Set the proxy's rates to the network's. Muon's matrices have their own."""
        of_network = self.trainer.optimizers[0].param_groups
        for group in optimizer.param_groups:
            alike = [g for g in of_network if g.get("is_muon") == group.get("is_muon")]
            group["lr"] = max(g["lr"] for g in alike or of_network)

    def state_dict(self) -> dict[str, Any]:
        if self.optimizer is None:
            return self._resumed
        return {"proxy": self.proxy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = state_dict


def _side(pixels: int) -> int:
    return min(max(pixels, FEWEST_PIXELS), MOST_PIXELS)


def _resized(images: Tensor) -> Tensor:
    """Resize (B, C, H, W) images to the size that the proxy sees, by averaging pixels."""
    height, width = images.shape[2:]
    size = _side(height), _side(width)
    is_divisible = height % size[0] == width % size[1] == 0
    if images.device.type == "mps" and not is_divisible:  # it cannot average these
        return F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return F.adaptive_avg_pool2d(images.float(), size)
