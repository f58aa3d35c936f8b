"""Fully connected networks on the pixels.

Source: E. Stevens, L. Antiga, T. Viehmann, Deep Learning with PyTorch, ch. 7: widths 512 (1,574,402
parameters on two classes of CIFAR-10) and 1024, 512, 128 (3,737,474). The book's network ends in
LogSoftmax and trains with the negative log-likelihood; this one returns logits, and the loss
includes the softmax.
"""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class MLP(nn.Module):
    """Fully connected layers: (B, C, H, W) to logits (B, num_classes).

    Args:
        spec: The spec of the images.
        widths: Units of each hidden layer.
        activation: "tanh" or "relu", after each hidden layer.
    """

    def __init__(
        self, spec: ImageSpec, *, widths: Sequence[int] = (512,), activation: str = "tanh"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(f"model.activation={activation}: expected tanh or relu")
        sizes = [math.prod(spec.shape), *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for num_inputs, num_outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(num_inputs, num_outputs), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], spec.num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits
