"""Counting pixels, some at a time, gives their mean and deviation."""

import tracemalloc

import numpy as np
import pytest

from glimpse.data import pixel_statistics
from glimpse.data.pixel_statistics import histogram, statistics


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_the_pixels(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    monkeypatch.setattr(pixel_statistics, "CHUNK", 20 * 9 * 7 * channels)
    random = np.random.default_rng(0)
    images = random.normal(90, 60, (50, 9, 7, channels)).clip(0, 255).astype(np.uint8)
    images[..., 0] //= 2  # channels differ
    mean, std = statistics(histogram(images))
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), atol=5.1e-5)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), atol=5.1e-5)


def test_large_images_are_counted_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_statistics, "CHUNK", 2**16)
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), np.uint8)
    whole = np.stack(
        [np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, 3, 0)]
    )
    tracemalloc.start()
    counts = histogram(images, np.arange(64))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < images.nbytes / 2
    np.testing.assert_array_equal(counts, whole)


def test_a_constant_channel_stays_finite() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), np.uint8)
    images[..., 1] = 200
    mean, std = statistics(histogram(images))
    assert (mean[1], std[1]) == (round(200 / 255, 4), 1.0)
    assert min(std) > 0
