"""Transforms that take one image at a time: those of torchvision, or a user's own nn.Module.

Each image is changed in turn, after the random generators of torch, NumPy and Python have been
seeded for this image. The draws are therefore a function of (seed, epoch, index) here too. The
generators are restored afterwards, so the draws of the rest of the run do not change. This takes
one call per image, whereas the other augmentations take one call per batch.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms import v2

from glimpse.crash import is_in_own_code
from glimpse.data.augment.base import Augmentation, Draws, resized, to_bytes
from glimpse.errors import UserError, first_line
from glimpse.seeding import restore, seed_all, state_of_generators
from glimpse.text import by, plural

REJECTIONS = (TypeError, ValueError, RuntimeError, NotImplementedError)  # of an image's dtype
BEYOND = 0.5  # how far noise and interpolation may leave [0, 1]; normalised images go beyond


class PerImage(Augmentation):
    """Apply a transform to each image, and resize the result if it has another size.

    Args:
        transform: Maps (C, H, W) uint8 to (C, H', W'), uint8 or floats in [0, 1]. If it
            rejects bytes, it gets values in [0, 1].
        name: Its name in the configuration, for messages.

    Raises:
        UserError: the transform normalises, which is the task of `data.normalize`. When called: the
            transform rejects an image, or does not return one.
    """

    def __init__(self, transform: nn.Module, name: str) -> None:
        if _normalises(transform):
            raise UserError(
                f"augment {name}: images are normalised after their augmentation; type "
                "data.normalize=dataset, imagenet or none"
            )
        self.transform = transform
        self.name = name
        self.remark = f"{name} works on one image at a time, which is slower than a whole batch"

    @property
    def label(self) -> str:
        return self.name.rpartition(".")[2]

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return self.sized(images, (images.shape[2], images.shape[3]), draws)

    def sized(self, images: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
        """Transform images of the stored size, and return them at (height, width) pixels."""
        before = state_of_generators(images.device)
        changed = []
        try:
            for image, seed in zip(images, draws.seeds(), strict=True):
                changed.append(resized(self._transformed(image, seed)[None], size))
        finally:
            restore(before, images.device)
        return torch.cat(changed)

    def _transformed(self, image: Tensor, seed: int) -> Tensor:
        found = self._called(image, seed)
        if isinstance(found, Tensor) and found.is_floating_point():
            lowest, highest = (value.item() for value in found.aminmax())
            if not (lowest >= -BEYOND and highest <= 1 + BEYOND):
                raise self._misfit(
                    image,
                    f"it returned values from {lowest:.3g} to {highest:.3g}, expected 0 to 1; leave out "
                    "Normalize, and write ToDtype(torch.float32, scale=True)",
                )
            found = to_bytes(found * 255)
        if not isinstance(found, Tensor):
            raise self._misfit(image, f"it returned {type(found).__name__}")
        if found.ndim != 3 or len(found) != len(image) or found.dtype != torch.uint8:
            shape = by(found.shape)
            raise self._misfit(image, f"it returned {shape} of {str(found.dtype)[6:]}")
        return found.as_subclass(Tensor)

    def _called(self, image: Tensor, seed: int) -> Any:
        """Call the transform with bytes or, if it rejects them in this draw, with floats."""
        seed_all(seed)
        try:
            return self.transform(image)
        except REJECTIONS as error:
            seed_all(seed)
            try:
                return self.transform(image / 255)
            except REJECTIONS:
                if is_in_own_code(error):
                    shape = by(image.shape)
                    error.add_note(f"while augment {self.name} was given one image, {shape} uint8")
                    raise error from None
                raise self._misfit(image, first_line(error)) from error

    def _misfit(self, image: Tensor, reason: str) -> UserError:
        shape = by(image.shape)
        return UserError(
            f"augment {self.name} was given one image, {shape} uint8, and should return one with "
            f"{plural(len(image), 'channel')}: {reason}"
        )


def _normalises(transform: object) -> bool:
    """Whether a transform, or one inside it, normalises."""
    inner = getattr(transform, "transforms", None)
    return isinstance(transform, v2.Normalize | transforms.Normalize) or (
        isinstance(inner, Iterable) and any(map(_normalises, inner))
    )
