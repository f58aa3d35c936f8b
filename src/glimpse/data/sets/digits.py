"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8×8, no download.

Source: UCI's Optical Recognition of Handwritten Digits, its test set (Alpaydin and Kaynak 1998).
There is no official division; `data.test_fraction` and `data.val_fraction` draw one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np

from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Source


class Digits(ImageDataModule):
    """Ten digits. Pixels 0 to 16 are spread over 0 to 255."""

    embedded: ClassVar[bool] = True

    def source_files(self) -> Iterable[Path]:
        """None: the images are part of scikit-learn."""
        return ()

    def read(self) -> Source:
        """(1797, 8, 8, 1) uint8."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = digits.target.astype(np.int64)
        return Source(tuple("0123456789"), Arrays(images, labels))
