"""How often each value occurs in each channel of images, and the mean and deviation that follow."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Of ImageNet's training images, as all its pretrained weights use them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHUNK = 512  # images counted at a time


def histogram(
    images: NDArray[np.uint8], rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """How often each value occurs in each channel of (N, H, W, C) uint8 images, or of the chosen
    rows of them, a few at a time: (C, 256)."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images if rows is None else rows), CHUNK):
        chosen = slice(start, start + CHUNK)
        some = images[chosen] if rows is None else images[rows[chosen]]
        strip = some.reshape(-1, some.shape[2], channels)  # one tall image; Pillow counts it faster
        found = Image.fromarray(strip[..., 0] if channels == 1 else strip).histogram()
        counts += np.reshape(found, (channels, 256))
    return counts


def statistics(counts: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels scaled to [0, 1], from a histogram."""
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    variance = shares @ values**2 - mean**2
    std = np.sqrt(np.maximum(variance, 1e-12))
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


def fixed_statistics(normalize: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of `normalize`: "none" or "imagenet", whose grey is
    the mean of its colours."""
    if normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    if channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return (round(sum(IMAGENET_MEAN) / 3, 4),), (round(sum(IMAGENET_STD) / 3, 4),)
