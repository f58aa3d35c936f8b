"""Initial weights that are not random: pretrained, or computed from training images."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from glimpse.data.batches import Batches


@runtime_checkable
class LoadsWeights(Protocol):
    """A network that starts from pretrained weights."""

    def load_weights(self) -> None:
        """Load the pretrained weights."""


@runtime_checkable
class LooksAtImages(Protocol):
    """A network that computes some of its weights from training images before training."""

    def look_at(self, images: Tensor) -> None:
        """Compute these weights from (N, C, H, W) float images, preprocessed as in training."""


def initialise(network: nn.Module, batches: Batches) -> None:
    """Set those weights of a new network that are not random.

    Args:
        network: Any network. Most draw all of their weights at random and are left unchanged.
        batches: The source of training images.
    """
    if isinstance(network, LoadsWeights):
        network.load_weights()
    if isinstance(network, LooksAtImages):
        network.look_at(batches.some_training_images())
