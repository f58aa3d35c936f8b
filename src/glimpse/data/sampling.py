"""`data.sampling`: how often the images of each class are drawn in an epoch of training.

An epoch has as many images as the training set. With "balanced", each class has an equal share of
them, and with "sqrt" a share in proportion to the square root of its number of images. Each class
is drawn without replacement: an epoch continues where the last one ended, so all images of a class
are seen equally often in the long run. Like the order without sampling, this is a function of
(seed, epoch), so that a run can resume at any batch.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POWERS = {"balanced": 0.0, "sqrt": 0.5}  # of a class's number of images, for its share of an epoch


class ClassSampling:
    """The images of each epoch.

    A number below M, the number of training images, is a position in the training set. The second
    time that an epoch shows an image, its number is higher by M, the third time by 2 M, and so on,
    so that each repetition is augmented differently.

    Args:
        labels: (M,) labels of the training images.
        how: A key of `POWERS`.
        seed: The seed of the order.
    """

    def __init__(self, labels: NDArray[np.int64], how: str, *, seed: int) -> None:
        self.num_images = len(labels)
        self.seed = seed
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels)
        self._of_class = [c for c in np.split(order, np.cumsum(sizes)[:-1]) if len(c)]
        shares = sizes[sizes > 0] ** POWERS[how]
        self._quotas = _rounded(shares / shares.sum() * self.num_images)

    def of_epoch(self, epoch: int) -> Tensor:
        """Return the numbers (M,) int64 of an epoch's images, class by class."""
        drawn = [
            numbers
            for label, quota in enumerate(self._quotas)
            for numbers in self._draw(label, int(quota), epoch)
        ]
        return torch.from_numpy(np.concatenate(drawn))

    def _draw(self, label: int, quota: int, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Yield the next `quota` images of a class from an endless sequence of its permutations."""
        own = self._of_class[label]
        start, end = epoch * quota, (epoch + 1) * quota
        first = start // len(own)
        for turn in range(first, -(-end // len(own))):
            seeds = np.random.SeedSequence([self.seed, label, turn])
            permuted = np.random.default_rng(seeds).permutation(own)
            begin = turn * len(own)
            chosen = permuted[max(0, start - begin) : end - begin]
            if turn == first:
                # The epoch may begin within a permutation: the images before are first shown later.
                shown_first = chosen
                yield chosen
            else:
                times = turn - first - ~np.isin(chosen, shown_first)
                yield chosen + times * self.num_images


class SampledRows:
    """The rows of a part for the numbers of `ClassSampling`.

    Args:
        rows: (M,) rows of the training set in its part.
        part_size: Number of images in the part; each repetition adds this number to a row.
    """

    def __init__(self, rows: Tensor, part_size: int) -> None:
        self.rows = rows
        self.part_size = part_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: Tensor) -> Tensor:
        size = len(self.rows)
        return self.rows[numbers % size] + self.part_size * (numbers // size)


def _rounded(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round to integers with the same sum; the largest fractions are rounded up."""
    whole = np.floor(shares + 1e-9).astype(np.int64)
    missing = round(shares.sum()) - whole.sum()
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    return whole
