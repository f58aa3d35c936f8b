"""Find the classes that a network confuses with each other."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glimpse.insight.predictions import Predictions


class Pair(NamedTuple):
    """The number of images of the class `actual` predicted as `predicted`; both are labels."""

    actual: int
    predicted: int
    num_images: int


def confusion_rows(predictions: Predictions) -> Iterator[NDArray[np.int64]]:
    """The rows (K,) of the confusion matrix, by label: the numbers of images by predicted class.

    With ten thousand classes, the whole matrix would take 800 MB.
    """
    num_classes = len(predictions.class_names)
    order = np.argsort(predictions.labels, kind="stable")
    ends = np.cumsum(np.bincount(predictions.labels, minlength=num_classes))[:-1]
    for predicted in np.split(predictions.predicted[order], ends):
        yield np.bincount(predicted, minlength=num_classes)


def confusion_matrix(
    predictions: Predictions, classes: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """(n, n) counts between n classes, by default all. Rows are actual, columns predicted classes.

    Args:
        predictions: The predictions.
        classes: The labels of the classes, in the order of the rows.
    """
    num_classes = len(predictions.class_names)
    classes = np.arange(num_classes) if classes is None else classes
    size = len(classes)
    place = np.full(num_classes, -1)
    place[classes] = np.arange(size)
    rows, columns = place[predictions.labels], place[predictions.predicted]
    both = (rows >= 0) & (columns >= 0)
    cells = rows[both] * size + columns[both]
    return np.bincount(cells, minlength=size**2).reshape(size, size)


def most_confused(predictions: Predictions, *, min_count: int = 1) -> list[Pair]:
    """The pairs of different classes with at least `min_count` mistakes, most mistakes first.

    Source: Howard & Gugger, Deep Learning for Coders with fastai and PyTorch, ch. 5.
    """
    actual, predicted = _mistakes(predictions)
    counts = Counter(zip(actual.tolist(), predicted.tolist(), strict=True))
    pairs = [Pair(a, p, number) for (a, p), number in counts.items() if number >= min_count]
    return sorted(pairs, key=lambda pair: (-pair.num_images, pair.actual, pair.predicted))


def most_confused_classes(predictions: Predictions, num_classes: int) -> NDArray[np.int64]:
    """The labels of the `num_classes` classes involved in the most mistakes, in label order."""
    involved = np.concatenate(_mistakes(predictions))
    mistakes = np.bincount(involved, minlength=len(predictions.class_names))
    return np.sort(np.argsort(-mistakes, kind="stable")[:num_classes])


def _mistakes(predictions: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The actual and the predicted classes of the images that are misclassified."""
    wrong = ~predictions.correct
    return predictions.labels[wrong], predictions.predicted[wrong]
