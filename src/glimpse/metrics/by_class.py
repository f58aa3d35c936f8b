"""Metrics that torchmetrics has too, right without images of a class and quick for many classes.

torchmetrics counts a class without images as 0 in recall and in the area under its ROC curve, so
that a split without one of ten classes could not score above 0.9. scikit-learn leaves the class out
of balanced accuracy, as we do, and raises an error for the other metrics.

torchmetrics also counts the K² cells of a confusion matrix in each batch, of which most metrics
need only the diagonal and the sums of its rows and columns: 3 K numbers, counted here. Their
values are equal. Left out: its options besides `average`.
"""

import warnings
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAUROC, MulticlassAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from glimpse.errors import UserError

AVERAGES = ("macro", "micro", "weighted")


class _Counts(Metric):
    """The images of each class (K,): right ones (`hits`), all (`actual`), predicted (`called`)."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    hits: Tensor
    actual: Tensor
    called: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("hits", "actual", "called"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: probabilities (B, K) and labels (B,)."""
        called = preds.argmax(1)
        # bincount would let a GPU wait for its largest number.
        self.hits.scatter_add_(0, target, (called == target).to(torch.int64))
        self.actual.scatter_add_(0, target, torch.ones_like(target))
        self.called.scatter_add_(0, called, torch.ones_like(called))


class _Mean(_Counts):
    """The mean over classes of a fraction, without classes that neither occur nor are predicted.

    Args:
        num_classes: Number of classes, K.
        average: `macro`: each class counts equally. `weighted`: each counts by its images. `micro`:
            the fraction of the sums over classes.

    Raises:
        UserError: the average is none of these.
    """

    def __init__(self, num_classes: int, average: str = "macro") -> None:
        super().__init__(num_classes)
        if average not in AVERAGES:
            name = type(self).__name__
            raise UserError(f"{name}: average={average}, expected one of {', '.join(AVERAGES)}")
        self.average = average

    @abstractmethod
    def fractions(self) -> tuple[Tensor, Tensor]:
        """Return the numerators and the denominators (K,) of the classes, integers."""

    def compute(self) -> Tensor:
        """Return a value in [0, 1]; a class with a denominator of 0 counts as 0."""
        above, below = self.fractions()
        if self.average == "micro":
            return above.sum() / below.sum().clamp_min(1)
        weights = self.actual if self.average == "weighted" else self.actual + self.called > 0
        return (weights * (above / below.clamp_min(1)) / weights.sum()).sum()


class F1(_Mean):
    """The harmonic mean of precision and recall."""

    def fractions(self) -> tuple[Tensor, Tensor]:
        return 2 * self.hits, self.actual + self.called


class Precision(_Mean):
    """The fraction of the images predicted as a class that belong to it."""

    def fractions(self) -> tuple[Tensor, Tensor]:
        return self.hits, self.called


class Recall(_Mean):
    """The fraction of a class's images that are predicted as that class."""

    def fractions(self) -> tuple[Tensor, Tensor]:
        return self.hits, self.actual


class Specificity(_Mean):
    """The fraction of the images of other classes that are not predicted as this class."""

    def fractions(self) -> tuple[Tensor, Tensor]:
        others = self.actual.sum() - self.actual
        return others - (self.called - self.hits), others


class JaccardIndex(_Mean):
    """The intersection over union of a class's actual and predicted images."""

    def fractions(self) -> tuple[Tensor, Tensor]:
        return self.hits, self.actual + self.called - self.hits


class BalancedAccuracy(_Counts):
    """The mean recall of the classes that occur.

    Source: Brodersen et al. 2010, The Balanced Accuracy and Its Posterior Distribution, for any
    number of classes.
    """

    def compute(self) -> Tensor:
        """Return a value in [0, 1]; NaN without images."""
        occurs = self.actual > 0
        return (self.hits[occurs] / self.actual[occurs]).mean()


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


class MatthewsCorrCoef(_Counts):
    """The Matthews correlation coefficient, in [-1, 1]; 0 if all images or all predictions are of
    one class.

    Source: Gorodkin 2004, Comparing two K-category assignments by a K-category correlation
    coefficient, equation 8. With two classes, torchmetrics returns other values for predictions of
    a single class, up to 0.985 where scikit-learn returns 0.
    """

    def compute(self) -> Tensor:
        """Return a value in [-1, 1]."""
        dtype = torch.float64 if self.device.type != "mps" else torch.float32
        actual, called = self.actual.to(dtype), self.called.to(dtype)
        total = actual.sum()
        covariance = self.hits.sum() * total - actual @ called
        spread = ((total**2 - called @ called) * (total**2 - actual @ actual)).sqrt()
        return covariance / spread if spread > 0 else torch.zeros_like(total)


def _images(metric: Any) -> Tensor:
    """The number of images of each class (K,)."""
    return torch.bincount(dim_zero_cat(metric.target), minlength=metric.num_classes)


def _mean(values: Any, counts: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may have no images, which is handled here
        by_class: Tensor = values()
    return by_class[counts].mean()
