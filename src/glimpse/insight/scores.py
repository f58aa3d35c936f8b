"""Scores with confidence intervals: accuracy, top 5, precision, recall, F1 and calibration.

Intervals are percentiles of the bootstrap (Efron & Tibshirani 1993, An Introduction to the
Bootstrap, ch. 13). The images of the split are resampled with replacement, so an interval shows how
much the score depends on the choice of images in the split. It does not cover the seed of the
training.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glimpse.insight.predictions import Predictions
from glimpse.ranks import TOP_K

NUM_BINS = 15  # Guo et al. 2017, On Calibration of Modern Neural Networks, sec. 4
TAILS = (0.025, 0.975)  # quantiles of the bootstrap that bound an interval of 95 %


@dataclass(frozen=True)
class Score:
    """A value and the bounds of its 95 % bootstrap interval; NaN if it is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class: its images, its predictions, and three scores in [0, 1]."""

    name: str
    num_images: int
    num_predicted: int
    precision: Score
    recall: Score
    f1: Score


@dataclass(frozen=True)
class Scores:
    """The scores of a split: `overall` by name, in printing order; `classes` in label order."""

    overall: dict[str, Score]
    classes: tuple[ClassScores, ...]


def score(
    predictions: Predictions,
    *,
    num_resamples: int = 1000,
) -> Scores:
    """Score the predictions, overall and for each class, with bootstrap intervals.

    The overall scores are accuracy, top-5 accuracy (if there are more than five classes),
    cross-entropy, expected calibration error, and the means over classes of precision, recall and
    F1.

    A class that is never predicted has precision 0. The recall and F1 of a class without images are
    NaN. Resamples in which a score is undefined do not count for its interval. The calibration
    error is the mean absolute difference between accuracy and confidence over 15 confidence bins,
    weighted by the number of images in each bin.

    Args:
        predictions: The predictions for a split.
        num_resamples: The number of bootstrap resamples.
    """
    random = np.random.default_rng(0)
    everything = np.arange(len(predictions))
    num_images = len(predictions)
    draws = [random.integers(num_images, size=num_images) for _ in range(num_resamples)]
    columns = _Columns(predictions)
    overall, by_class = columns.of(everything)
    resampled = [columns.of(draw) for draw in draws]

    def scores_of(value: NDArray[np.float64], others: list[NDArray[np.float64]]) -> list[Score]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a score without a value
            low, high = np.nanquantile(np.stack(others), TAILS, axis=0)
        bounds = zip(value.ravel(), low.ravel(), high.ravel(), strict=True)
        return [Score(float(v), float(a), float(b)) for v, a, b in bounds]

    names = columns.names
    summary = dict(zip(names, scores_of(overall, [o for o, _ in resampled]), strict=True))
    triples = scores_of(by_class, [c for _, c in resampled])  # (3, K) row by row
    num_classes = len(predictions.class_names)
    counts = np.bincount(predictions.labels, minlength=num_classes)
    predicted = np.bincount(predictions.predicted, minlength=num_classes)
    classes = tuple(
        ClassScores(
            name,
            int(counts[label]),
            int(predicted[label]),
            *(triples[kind * num_classes + label] for kind in range(3)),
        )
        for label, name in enumerate(predictions.class_names)
    )
    return Scores(summary, classes)


class _Columns:
    """Precomputed values per image, so that scoring a resample takes only a few counts."""

    def __init__(self, predictions: Predictions) -> None:
        self.num_classes = len(predictions.class_names)
        self.labels, self.predicted = predictions.labels, predictions.predicted
        self.correct = predictions.correct
        self.in_top = predictions.ranks <= TOP_K
        self.losses = predictions.losses.astype(np.float64)
        confidence = predictions.confidence.astype(np.float64)
        self.gap = confidence - self.correct
        self.bins = np.ceil(confidence * NUM_BINS).astype(np.int64).clip(1, NUM_BINS) - 1
        self.has_top = self.num_classes > TOP_K
        top = [f"top{TOP_K}"] if self.has_top else []
        self.names = [
            "acc", *top, "loss", "calibration_error", "mean_precision", "mean_recall", "mean_f1",
        ]  # fmt: skip

    def of(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The overall scores of the chosen images, and their (3, K) precision, recall and F1.

        The means are over the classes that occur among these images.
        """
        correct, labels, predicted = (
            self.correct[chosen],
            self.labels[chosen],
            self.predicted[chosen],
        )
        hits = np.bincount(labels[correct], minlength=self.num_classes)
        actual = np.bincount(labels, minlength=self.num_classes)
        called = np.bincount(predicted, minlength=self.num_classes)
        has_images = np.where(actual > 0, 1, np.nan)
        by_class = np.stack(
            (
                hits / np.maximum(called, 1),
                hits / np.maximum(actual, 1) * has_images,
                2 * hits / np.maximum(actual + called, 1) * has_images,
            )
        )
        gaps = np.bincount(self.bins[chosen], self.gap[chosen], minlength=NUM_BINS)
        top = [self.in_top[chosen].mean()] if self.has_top else []
        overall = [
            correct.mean(),
            *top,
            self.losses[chosen].mean(),
            np.abs(gaps).sum() / len(chosen),
            *by_class[:, actual > 0].mean(1),
        ]
        return np.array(overall), by_class
