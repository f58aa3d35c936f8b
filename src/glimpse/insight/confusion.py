"""Find the classes that a network confuses with each other."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glimpse.insight.predictions import Predictions


class Pair(NamedTuple):
    """The number of images of the class `actual` predicted as `predicted`; both are labels."""

    actual: int
    predicted: int
    num_images: int


def confusion_matrix(predictions: Predictions) -> NDArray[np.int64]:
    """(K, K) counts. Rows are actual classes, columns are predicted classes."""
    num_classes = len(predictions.class_names)
    cells = predictions.labels * num_classes + predictions.predicted
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def most_confused(matrix: NDArray[np.int64], *, min_count: int = 1) -> list[Pair]:
    """The pairs of different classes with at least `min_count` mistakes, most mistakes first.

    Source: Howard & Gugger, Deep Learning for Coders with fastai and PyTorch, ch. 5.
    """
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    rows, columns = np.nonzero(wrong >= max(1, min_count))
    pairs = [Pair(int(r), int(c), int(wrong[r, c])) for r, c in zip(rows, columns, strict=True)]
    return sorted(pairs, key=lambda pair: (-pair.num_images, pair.actual, pair.predicted))


def most_confused_classes(matrix: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """The labels of the `num_classes` classes involved in the most mistakes, in label order."""
    mistakes = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    return np.sort(np.argsort(-mistakes, kind="stable")[:num_classes])
