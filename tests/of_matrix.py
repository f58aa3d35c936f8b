"""Predictions whose confusion matrix is given."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glimpse.insight.predictions import Predictions


def of_matrix(matrix: NDArray[np.generic], names: Sequence[str] | None = None) -> Predictions:
    """Predictions with these counts of actual classes (rows) by predicted classes (columns)."""
    size = len(matrix)
    labels, predicted = (
        np.repeat(at.ravel(), matrix.ravel().astype(int)) for at in np.indices(matrix.shape)
    )
    names = tuple(names or map(str, range(size)))
    return Predictions("val", names, np.eye(size, dtype=np.float32)[predicted], labels)
