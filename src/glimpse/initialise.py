"""Initial weights that are not random: pretrained, or computed from training images."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from glimpse.console import console
from glimpse.data.module import ImageDataModule
from glimpse.models.weights import load_weights, read_weights


@runtime_checkable
class LoadsWeights(Protocol):
    """A network that starts from pretrained weights."""

    def load_weights(self) -> str:
        """Load the pretrained weights. Returns a line that says which; empty if there are none."""


@runtime_checkable
class LooksAtImages(Protocol):
    """A network that computes some of its weights from training images before training."""

    def look_at(self, images: Tensor) -> None:
        """Compute these weights from (N, C, H, W) float images, preprocessed as in training."""


def initialise(network: nn.Module, data: ImageDataModule, weights: str | None) -> None:
    """Set the weights of a new network that are not random, and print where they come from.

    Args:
        network: Any network. Most draw all of their weights at random and are left unchanged.
        data: The source of training images, with its spec.
        weights: `model.weights`: a file or a run folder, or None. A network that loads its own
            weights ignores this.

    Raises:
        UserError: the weights cannot be read, or do not fit.
    """
    is_given = weights not in (None, "none")
    if isinstance(network, LoadsWeights):
        line = network.load_weights()
    elif is_given:
        found = read_weights(Path(str(weights))).tensors
        source = f"model.weights={weights}"
        line = load_weights(network, found, source, num_classes=data.spec.num_classes)
    else:
        line = ""
    if line:
        console.print(line)
    if isinstance(network, LooksAtImages) and not is_given:
        network.look_at(data.batches.some_training_images())
