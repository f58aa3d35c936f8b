"""What convolution and pooling leave of an image, and the error for an image they use up."""

from collections.abc import Callable, Sequence

from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError


class ImageTooSmallError(UserError):
    """The network's layers shrink the image to nothing."""


def valid(kernel: int) -> Callable[[int], int]:
    """The side left by a convolution without padding."""
    return lambda side: side - kernel + 1


def halve(side: int) -> int:
    """The side left by 2×2 max pooling."""
    return side // 2


def shrunk(side: int, steps: Sequence[Callable[[int], int]]) -> int:
    """The side left after all steps; 0 or less if nothing is left."""
    for step in steps:
        side = max(0, step(side))
    return side


def require(spec: ImageSpec, steps: Sequence[Callable[[int], int]], model: str) -> tuple[int, int]:
    """The height and width that the steps leave of the spec's images.

    Raises:
        ImageTooSmallError: nothing is left; the message names the smallest size that works.
    """
    left = shrunk(spec.height, steps), shrunk(spec.width, steps)
    if min(left) < 1:
        smallest = next(side for side in range(1, 10_000) if shrunk(side, steps) >= 1)
        raise ImageTooSmallError(
            f"{model} takes images of {smallest}×{smallest} or larger, these are "
            f"{spec.height}×{spec.width}: type model=convnet (from 8×8) or model=linear"
        )
    return left
