"""Counting pixels, some at a time, gives their mean and deviation."""

import numpy as np
import pytest

from glimpse.data import pixel_statistics
from glimpse.data.pixel_statistics import histogram, statistics


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_the_pixels(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    monkeypatch.setattr(pixel_statistics, "CHUNK", 20)
    random = np.random.default_rng(0)
    images = random.normal(90, 60, (50, 9, 7, channels)).clip(0, 255).astype(np.uint8)
    images[..., 0] //= 2  # channels differ
    mean, std = statistics(histogram(images))
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), atol=5.1e-5)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), atol=5.1e-5)
