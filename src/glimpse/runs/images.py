"""Iterate over images given as paths, Pillow images, arrays or tensors."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from glimpse.errors import UserError
from glimpse.text import by

One = str | Path | Image.Image
Images = One | NDArray[Any] | Tensor | Iterable[One | NDArray[Any] | Tensor]
CHANNELS = (1, 3, 4)


def one_by_one(images: Any, *, channels: int) -> Iterator[One]:
    """Yield the paths and Pillow images in one image or several.

    Args:
        images: Paths, Pillow images, arrays (H, W), (H, W, C) or (N, H, W, C), tensors (H, W),
            (C, H, W) or (N, C, H, W), which may also have their channels last, or an iterable of
            these. Three dimensions without one of 1, 3 or 4 channels are N grey images.
        channels: Channels of the network's images. For a network of colour images, (3, H, W) is one
            image, and for one of grey images it is three.

    Raises:
        UserError: an image is of another type or shape.
    """
    if isinstance(images, One):
        yield images
    elif isinstance(images, Tensor | np.ndarray):
        yield from _of_array(_channels_last(images, channels))
    elif isinstance(images, Iterable) and not isinstance(images, Mapping | bytes):
        for image in images:
            yield from one_by_one(image, channels=channels)
    else:
        raise UserError(
            f"{type(images).__name__} is not an image: expected paths, Pillow images, or uint8 arrays "
            "or tensors"
        )


def _channels_last(images: Tensor | NDArray[Any], channels: int) -> NDArray[np.uint8]:
    is_tensor = isinstance(images, Tensor)
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        if images.is_floating_point():  # refused below, but NumPy has no bf16
            images = images.float()
        images = images.numpy()
    _require_bytes(images)
    if images.ndim > 2 and (is_tensor or images.shape[-1] not in CHANNELS):
        first = images.shape[-3]
        if first in CHANNELS and (images.ndim == 4 or channels == 3 or first == 1):
            return np.moveaxis(images, -3, -1)
    return images


def _require_bytes(array: NDArray[Any]) -> None:
    if array.dtype != np.uint8:
        remedy = (
            "if they are from 0 to 255, convert them to uint8"
            if array.dtype.kind in "iu"
            else "multiply them by 255 and convert them to uint8, if they are from 0 to 1"
        )
        raise UserError(
            f"an image of {_shape(array)} has values of {array.dtype}, expected uint8 from 0 to 255: {remedy}"
        )


def _shape(array: NDArray[Any]) -> str:
    return by(array.shape) or "()"


def _of_array(array: NDArray[np.uint8]) -> Iterator[Image.Image]:
    has_channels = array.ndim > 0 and array.shape[-1] in CHANNELS
    if (array.ndim == 4 and has_channels) or (array.ndim == 3 and not has_channels):
        for one in array:
            yield from _of_array(one)
    elif array.ndim in (2, 3):
        if not array.size:
            raise UserError(f"an image has the shape {_shape(array)}, expected at least one pixel")
        grey = array.ndim == 3 and array.shape[-1] == 1
        yield Image.fromarray(np.ascontiguousarray(array[:, :, 0] if grey else array))
    else:
        raise UserError(f"an image has the shape {_shape(array)}, expected (H, W) or (H, W, C)")
