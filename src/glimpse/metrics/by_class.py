"""Metrics that stay right where torchmetrics' own do not: if a class has no image, or no prediction.

torchmetrics counts a class without images as 0 in recall and in the area under its ROC curve, so
that a split without one of ten classes could not score above 0.9. scikit-learn leaves the class out
of balanced accuracy, as we do, and raises an error for the other metrics.
"""

import warnings
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassConfusionMatrix,
)
from torchmetrics.utilities import dim_zero_cat

from glimpse.losses import widest_float


class BalancedAccuracy(Metric):
    """The mean recall of the classes that occur.

    Source: Brodersen et al. 2010, The Balanced Accuracy and Its Posterior Distribution, for any
    number of classes.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    hits: Tensor
    images: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("hits", "images"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: probabilities (B, K) and labels (B,)."""
        right = target[preds.argmax(1) == target]
        self.hits += torch.bincount(right, minlength=self.num_classes)
        self.images += torch.bincount(target, minlength=self.num_classes)

    def compute(self) -> Tensor:
        """Return a value in [0, 1]; NaN without images."""
        occurs = self.images > 0
        return (self.hits[occurs] / self.images[occurs]).mean()


class AUROC(MulticlassAUROC):
    """The area under the ROC curve of each class against the rest, averaged over classes.

    A class counts if it has images and is not the only one. The result is exact, not binned. With
    two classes, it is the area under their single ROC curve.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average=None, validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return a value in [0, 1]; NaN if the images have fewer than two classes."""
        images = _images(self)
        return _mean(super().compute, (images > 0) & (images < images.sum()))


class AveragePrecision(MulticlassAveragePrecision):
    """The area under the precision-recall curve of each class, averaged over classes that occur."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average=None, validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return a value in [0, 1]; NaN without images."""
        return _mean(super().compute, _images(self) > 0)


class MatthewsCorrCoef(MulticlassConfusionMatrix):
    """The Matthews correlation coefficient, in [-1, 1]; 0 if all images or all predictions are of
    one class.

    Source: Gorodkin 2004, Comparing two K-category assignments by a K-category correlation
    coefficient, equation 8. With two classes, torchmetrics returns other values for predictions of
    a single class, up to 0.985 where scikit-learn returns 0.
    """

    higher_is_better = True

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, validate_args=False)

    def compute(self) -> Tensor:
        """Return a value in [-1, 1]."""
        matrix = self.confmat.to(widest_float(self.device))
        actual, predicted, total = matrix.sum(1), matrix.sum(0), matrix.sum()
        covariance = matrix.trace() * total - actual @ predicted
        spread = ((total**2 - predicted @ predicted) * (total**2 - actual @ actual)).sqrt()
        return covariance / spread if spread > 0 else torch.zeros_like(total)


def _images(metric: Any) -> Tensor:
    """The number of images of each class (K,)."""
    return torch.bincount(dim_zero_cat(metric.target), minlength=metric.num_classes)


def _mean(values: Any, counts: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may have no images, which is handled here
        by_class: Tensor = values()
    return by_class[counts].mean()
