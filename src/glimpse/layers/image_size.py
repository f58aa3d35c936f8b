"""The image size after convolution and pooling, the usual sizes, and the error for small images."""

from collections.abc import Callable, Sequence

from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError

# Sides of square images, in pixels, that networks are written for.
USUAL_SIDES = (
    8, 16, 24, 28, 32, 48, 64, 96, 128, 160, 192, 224, 227, 256, 299, 320, 384, 448, 512, 518,
)  # fmt: skip
SMALLEST_OF_CONVNET = 8  # pixels, which its poolings reduce to one


def valid(kernel: int) -> Callable[[int], int]:
    """Return a function that maps a side to the side after a convolution without padding."""
    return lambda side: side - kernel + 1


def halve(side: int) -> int:
    """Return the side after 2×2 max pooling."""
    return side // 2


def _shrunk(side: int, steps: Sequence[Callable[[int], int]]) -> int:
    """Return the side after all steps; 0 if nothing is left."""
    for step in steps:
        side = max(0, step(side))
    return side


def require(spec: ImageSpec, steps: Sequence[Callable[[int], int]], model: str) -> tuple[int, int]:
    """Return the height and width of the spec's images after all steps.

    Raises:
        UserError: nothing is left of the image; the message states the minimum size.
    """
    left = _shrunk(spec.height, steps), _shrunk(spec.width, steps)
    if min(left) < 1:
        smallest = next(side for side in range(1, 10_000) if _shrunk(side, steps) >= 1)
        others = "model=linear (any size)"
        if model != "convnet" and min(spec.height, spec.width) >= SMALLEST_OF_CONVNET:
            others = f"model=convnet or {others}"
        raise UserError(
            f"the images are {spec.height}×{spec.width}, but {model} needs "
            f"{smallest}×{smallest} or larger: type {others}, data.presize={smallest} if they are "
            f"image files, or data.size={smallest} to enlarge them"
        )
    return left
