"""Initial weights that are not drawn at random: published ones, or ones computed from training images."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from glimpse.data.batches import Batches


@runtime_checkable
class LoadsWeights(Protocol):
    """A network that starts from weights that were trained before."""

    def load_weights(self) -> None:
        """Take them."""


@runtime_checkable
class LooksAtImages(Protocol):
    """A network that computes some of its weights from training images before it is trained."""

    def look_at(self, images: Tensor) -> None:
        """Take (N, C, H, W) float images, as the network will see them."""


def initialise(network: nn.Module, batches: Batches) -> None:
    """Give a new network the weights that it does not draw at random.

    Args:
        network: any; most draw all of their weights.
        batches: where training images come from.
    """
    if isinstance(network, LoadsWeights):
        network.load_weights()
    if isinstance(network, LooksAtImages):
        network.look_at(batches.some_training_images())
