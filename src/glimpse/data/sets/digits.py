"""Handwritten digits from scikit-learn: 1,797 grey images, 8×8, without a download.

Source: the test set of UCI's Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998).
There is no official split; `data.test_fraction` and `data.val_fraction` control a random one.
"""

from functools import cache
from typing import ClassVar

import numpy as np

from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Source


class Digits(ImageDataModule):
    """Ten digits. Pixel values from 0 to 16 are scaled to 0 to 255."""

    embedded: ClassVar[bool] = True

    def read(self) -> Source:
        """Read (1797, 8, 8, 1) uint8."""
        arrays = _arrays()
        return Source(tuple("0123456789"), Arrays(arrays.images.copy(), arrays.labels.copy()))


@cache
def _arrays() -> Arrays:
    """The images and labels, parsed once per process, because that takes longer than an epoch."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return Arrays(images, digits.target.astype(np.int64))
