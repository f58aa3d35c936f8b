"""Scores with confidence intervals: accuracy, top 5, precision, recall, F1 and calibration.

An interval shows how much the score depends on the choice of images in the split. It does not cover
the seed of the training. Shares of images, such as accuracy and the recall of a class, have the
interval of Wilson 1927 (Probable Inference, the Law of Succession, and Statistical Inference), which
is right for few images and for shares of 0 and 1. The intervals of means over classes, of F1 and of
the loss are percentiles of the bootstrap (Efron & Tibshirani 1993, An Introduction to the Bootstrap,
ch. 13): the images are resampled with replacement. The calibration error has none, because it is
larger in resamples than in the split.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glimpse.insight.predictions import Predictions
from glimpse.ranks import TOP_K

CONFIDENCE_LEVEL = 0.95
TAILS = ((1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2)
NUM_BINS = 15  # Guo et al. 2017, On Calibration of Modern Neural Networks, sec. 4


@dataclass(frozen=True)
class Score:
    """A value and the bounds of its 95 % interval; NaN if they are undefined."""

    value: float
    low: float = math.nan
    high: float = math.nan


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


def score(predictions: Predictions, *, num_resamples: int = 1000) -> Scores:
    """Score the predictions, overall and for each class, with intervals.

    The overall scores are accuracy, top-5 accuracy (if there are more than five classes),
    cross-entropy, expected calibration error, and the means of precision, recall and F1 over the
    classes that occur or are predicted, as in scikit-learn.

    A class that is never predicted has precision 0. The recall and F1 of a class without images are
    NaN; the means count them as 0. Resamples in which a score is undefined do not count for its
    interval. If all resamples are equal, as those of an F1 of 0, there is no interval. The calibration
    error is the mean absolute difference between accuracy and confidence over 15 confidence bins,
    weighted by the number of images in each bin.

    Args:
        predictions: The predictions for a split.
        num_resamples: The number of bootstrap resamples.
    """
    random = np.random.default_rng(0)
    num_images, num_classes = len(predictions), len(predictions.class_names)
    values, f1_values = _scores_of(predictions, np.arange(num_images))
    draws = (random.integers(num_images, size=num_images) for _ in range(num_resamples))
    resampled = [_scores_of(predictions, draw) for draw in draws]
    f1 = _bootstrapped(f1_values, [scores for _, scores in resampled])
    loss, *means = _bootstrapped(values, [scores for scores, _ in resampled])
    overall = {"acc": _share(int(predictions.correct.sum()), num_images)}
    if num_classes > TOP_K:
        in_top = int((predictions.ranks <= TOP_K).sum())
        overall[f"top{TOP_K}"] = _share(in_top, num_images)
    overall |= {"loss": loss, "calibration_error": Score(_calibration_error(predictions))}
    overall |= zip(("mean_precision", "mean_recall", "mean_f1"), means, strict=True)
    right = np.bincount(predictions.labels[predictions.correct], minlength=num_classes).tolist()
    actual = np.bincount(predictions.labels, minlength=num_classes).tolist()
    num_predicted = np.bincount(predictions.predicted, minlength=num_classes).tolist()
    classes = tuple(
        ClassScores(
            name,
            actual[k],
            num_predicted[k],
            precision=_share(right[k], num_predicted[k]) if num_predicted[k] else Score(0.0),
            recall=_share(right[k], actual[k]),
            f1=f1[k],
        )
        for k, name in enumerate(predictions.class_names)
    )
    return Scores(overall, classes)


def _share(number: int, of: int) -> Score:
    """A share with its Wilson interval; NaN if it is one of nothing."""
    if not of:
        return Score(math.nan)
    from scipy.stats import binomtest  # slow to import, and a run of training does not need it

    bounds = binomtest(number, of).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return Score(number / of, float(bounds.low), float(bounds.high))


def _bootstrapped(
    values: NDArray[np.float64], resampled: Sequence[NDArray[np.float64]]
) -> list[Score]:
    """Values (N,) with the percentiles of their resamples; NaN where all of these are equal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a score without a value
        low, high = np.nanquantile(np.stack(resampled), TAILS, axis=0)
    low, high = (np.where(low < high, bound, np.nan) for bound in (low, high))
    bounds = zip(values.tolist(), low.tolist(), high.tolist(), strict=True)
    return [Score(*one) for one in bounds]


def _calibration_error(predictions: Predictions) -> float:
    confidence = predictions.confidence.astype(np.float64)
    bins = np.ceil(confidence * NUM_BINS).astype(np.int64).clip(1, NUM_BINS) - 1
    gaps = np.bincount(bins, confidence - predictions.correct, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(predictions))


def _scores_of(
    predictions: Predictions, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the chosen images, by a few counts.

    Returns:
        The loss and the means of precision, recall and F1 over the classes that occur or are
        predicted (4,); and the F1 of each class (K,).
    """
    num_classes = len(predictions.class_names)
    labels, predicted = predictions.labels[chosen], predictions.predicted[chosen]
    hits = np.bincount(labels[labels == predicted], minlength=num_classes)
    actual = np.bincount(labels, minlength=num_classes)
    num_predicted = np.bincount(predicted, minlength=num_classes)
    f1 = 2 * hits / np.maximum(actual + num_predicted, 1)
    by_class = np.stack((hits / np.maximum(num_predicted, 1), hits / np.maximum(actual, 1), f1))
    means = by_class[:, actual + num_predicted > 0].mean(1)
    loss = predictions.losses[chosen].astype(np.float64).mean()
    return np.array([loss, *means]), np.where(actual > 0, f1, np.nan)
