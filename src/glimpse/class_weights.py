"""`loss.class_weights`: how much the images of each class count in the loss."""

import math
from collections.abc import Sequence

import numpy as np

from glimpse.data.module import ImageDataModule
from glimpse.errors import UserError
from glimpse.text import some


def class_weights(asked: str | Sequence[float], data: ImageDataModule) -> list[float]:
    """The weight of each class: the given weights, or for "balanced" weights from the counts.

    Balanced weights are N / (K · n) for a class with n of N training images and K classes that have
    images, as in scikit-learn. Their mean over the training images is 1.

    Raises:
        UserError: the number of weights differs from the number of classes, or one is not above 0.
    """
    names = data.spec.class_names
    if asked == "balanced":
        counts = np.bincount(data.labels("train"), minlength=len(names))
        per_class = counts.sum() / np.count_nonzero(counts)
        return [per_class / count if count else 1.0 for count in counts.tolist()]
    if isinstance(asked, str):
        raise UserError(
            f"loss.class_weights={asked}: expected balanced, or a list with a number for each class"
        )
    shown = f"loss.class_weights=[{','.join(map(str, asked))}]"
    if len(asked) != len(names):
        raise UserError(
            f"{shown}: {len(asked)} numbers, expected one for each of the {len(names)} classes "
            f"({some(names)})"
        )
    for weight in asked:
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < math.inf:
            raise UserError(f"{shown}: {weight} is not a weight, expected numbers above 0")
    return [float(weight) for weight in asked]
