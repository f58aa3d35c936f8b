"""Test-time views: average a network's logits over several views of each image.

Sources: mirror images as in K. Jordan 2024, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU,
section 3.5; shifts as in the evaluation of its program, cifar10-airbench.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from glimpse.monitor import VIEWS

Forward = Callable[[Tensor], Tensor]


def flip(forward: Forward, images: Tensor, logits: Tensor) -> Tensor:
    """The mean over each image and its mirror image.

    Args:
        forward: Maps images to logits (B, K).
        images: (B, C, H, W).
        logits: (B, K), the logits of the images, which are known already.
    """
    return (logits + forward(images.flip(3))) / 2


def flip_shift(forward: Forward, images: Tensor, logits: Tensor) -> Tensor:
    """The mean over six views: the image, the image shifted by one pixel in both directions along a
    diagonal, and the mirror images of these three. The two views without a shift have half of the
    total weight.

    Shifts mirror the pixels at the border. The arguments are those of `flip`, but images must be at
    least two pixels high and wide.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = [padded[:, :, i : i + height, i : i + width] for i in (0, 2)]
    pairs = [flip(forward, view, forward(view)) for view in shifted]
    return flip(forward, images, logits) / 2 + sum(pairs) / 4


AVERAGES = dict(zip(VIEWS, (flip, flip_shift), strict=True))  # by the name that `tta` gives
