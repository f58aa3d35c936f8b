"""Histograms of pixel values per channel, with their mean and standard deviation."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glimpse.errors import UserError

# Statistics of ImageNet's training images, as used by models pretrained on it.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHUNK = 2**24  # bytes of pixels counted at a time


def histogram(
    images: NDArray[np.uint8], rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Count each value in each channel of (N, H, W, C) uint8 images, or of some rows: (C, 256)."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    step = max(1, CHUNK // math.prod(images.shape[1:]))
    for start in range(0, len(images if rows is None else rows), step):
        chosen = slice(start, start + step)
        some = images[chosen] if rows is None else images[rows[chosen]]
        strip = some.reshape(-1, some.shape[2], channels)  # one tall image: faster in Pillow
        found = Image.fromarray(strip[..., 0] if channels == 1 else strip).histogram()
        counts += np.reshape(found, (channels, 256))
    return counts


class ConstantPixelsError(UserError):
    """All pixels of all training images are equal."""


def statistics(counts: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel from a histogram, for pixels in [0, 1].

    A constant channel gets a deviation of 1, so that normalised pixels are 0 instead of infinite.

    Raises:
        ConstantPixelsError: all channels are constant.
    """
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    variance = shares @ values**2 - mean**2
    std = np.sqrt(np.maximum(variance, 0)).round(4)
    if not std.any():
        raise ConstantPixelsError(
            "all pixels of all training images are equal, so there is nothing to learn from them: look at "
            "them with glimpse data show, or type data.normalize=none to train anyway"
        )
    std[std == 0] = 1
    return tuple(mean.round(4).tolist()), tuple(std.tolist())


def fixed_statistics(normalize: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel for `normalize`, "none" or "imagenet".

    For grey images, "imagenet" uses the mean over its three channels.
    """
    if normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (round(sum(IMAGENET_MEAN) / 3, 4),), (round(sum(IMAGENET_STD) / 3, 4),)
