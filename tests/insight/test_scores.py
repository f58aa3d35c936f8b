"""Scores and their intervals, against scikit-learn, torchmetrics and SciPy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from glimpse.insight.confusion import (
    confusion_matrix,
    confusion_rows,
    most_confused,
    most_confused_classes,
)
from glimpse.insight.predictions import Predictions, write_predictions
from glimpse.insight.scores import score
from glimpse.insight.significance import mcnemar
from largest import Largest
from of_matrix import of_matrix

NUM_CLASSES = 7


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    """A classifier that is right about two times of three; nobody ever answers with the last class."""
    random = np.random.default_rng(3)
    labels = random.integers(NUM_CLASSES, size=600)
    logits = random.normal(size=(600, NUM_CLASSES))
    logits[np.arange(600), labels] += 1.8
    logits[:, -1] = -9
    answers = torch.log_softmax(torch.from_numpy(logits).float(), 1).numpy()
    return Predictions("val", tuple("abcdefg"), answers, labels)


def test_values_are_those_of_scikit_learn_and_torchmetrics(predictions: Predictions) -> None:
    found = score(predictions, num_resamples=20)
    labels, predicted = predictions.labels, predictions.predicted
    by_class = metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for kind, expected in zip(("precision", "recall", "f1"), by_class, strict=False):
        values = [getattr(c, kind).value for c in found.classes]
        assert values == pytest.approx(expected.tolist())
    assert [c.num_images for c in found.classes] == by_class[3].tolist()
    assert found.classes[-1].num_predicted == 0
    overall = {name: s.value for name, s in found.overall.items()}
    probabilities = np.exp(predictions.log_probabilities)
    assert overall["acc"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert overall["top5"] == pytest.approx(
        metrics.top_k_accuracy_score(labels, probabilities, k=5)
    )
    assert overall["loss"] == pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-5)
    assert overall["mean_f1"] == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    assert overall["calibration_error"] == pytest.approx(
        multiclass_calibration_error(
            torch.from_numpy(probabilities), torch.from_numpy(labels), NUM_CLASSES, n_bins=15
        ).item(),
        abs=1e-5,
    )


def test_intervals_are_those_of_scipys_bootstrap(predictions: Predictions) -> None:
    found = score(predictions, num_resamples=4000)
    values = (predictions.losses,)
    options = {"n_resamples": 4000, "method": "percentile", "rng": 0}
    expected = stats.bootstrap(values, np.mean, **options).confidence_interval
    interval = found.overall["loss"]
    assert interval.low == pytest.approx(expected.low, abs=0.008)
    assert interval.high == pytest.approx(expected.high, abs=0.008)


def test_shares_have_wilsons_intervals(predictions: Predictions) -> None:
    found = score(predictions, num_resamples=20)
    right, of, z = int(predictions.correct.sum()), len(predictions), stats.norm.ppf(0.975)
    middle = (right + z**2 / 2) / (of + z**2)
    reach = z / (of + z**2) * np.sqrt(right * (of - right) / of + z**2 / 4)
    interval = found.overall["acc"]
    assert (interval.low, interval.high) == pytest.approx((middle - reach, middle + reach))
    assert found.overall["top5"].low < found.overall["top5"].value < found.overall["top5"].high
    last = found.classes[-1]  # never predicted
    assert last.precision.value == 0
    assert np.isnan(last.precision.high)
    assert 0 == last.recall.low < last.recall.high < 0.1


def test_the_calibration_error_has_no_interval(predictions: Predictions) -> None:
    """It is larger in resamples, so that percentiles would often leave out the value itself."""
    assert np.isnan(score(predictions, num_resamples=20).overall["calibration_error"].low)


def test_two_classes_have_no_top5() -> None:
    answers = np.log(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32))
    two = Predictions("val", ("a", "b"), answers, np.array([0, 0]))
    found = score(two, num_resamples=10)
    assert "top5" not in found.overall
    assert found.overall["acc"].value == 0.5
    assert np.isnan(found.classes[1].recall.value)  # it has no image
    assert found.overall["mean_recall"].value == 0.25  # but it is predicted, as in scikit-learn


def test_few_images_are_never_sure() -> None:
    labels = np.array([0] * 40 + [1] * 2)
    answers = np.log(np.where(np.eye(2)[labels] > 0, 0.9, 0.1)).astype(np.float32)
    found = score(Predictions("val", ("a", "b"), answers, labels))
    [_, rare] = found.classes
    assert rare.recall.low < 0.4
    assert rare.recall.high == 1
    assert np.isnan(rare.f1.low)  # all resamples are equal
    assert np.isnan(found.overall["mean_f1"].high)


def test_ranks_and_losses(predictions: Predictions) -> None:
    order = np.argsort(-predictions.log_probabilities, axis=1)
    places = (order == predictions.labels[:, None]).argmax(1) + 1
    assert (predictions.ranks == places).all()
    assert ((predictions.ranks == 1) == predictions.correct).all()
    of_label = np.exp(-predictions.losses)
    assert of_label[predictions.correct] == pytest.approx(
        predictions.confidence[predictions.correct]
    )


def test_blocks_change_no_value(
    predictions: Predictions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only a block of the logits is computed with at a time, whatever their number."""
    whole = predictions.log_probabilities
    monkeypatch.setattr("glimpse.insight.predictions.BLOCK", 70)  # 10 images, and 600 of them
    again = replace(predictions)
    with Largest() as seen:
        score(again, num_resamples=2)
        write_predictions(again, [""] * len(again), tmp_path / "predictions.csv")
    assert seen.largest == len(again)
    assert (again.losses == -whole[np.arange(len(again)), again.labels]).all()
    assert (again.confidence == np.exp(whole.max(1))).all()
    assert (again.ranks == predictions.ranks).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_an_image_whose_output_is_not_a_number_has_no_loss(odd: float) -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[1, 2] = odd
    found = Predictions("val", tuple("abc"), logits, np.array([0, 0]))
    assert (np.isnan(found.losses) == np.isnan(found.log_probabilities).any(1)).all()


def test_confusion_is_that_of_scikit_learn(predictions: Predictions) -> None:
    expected = metrics.confusion_matrix(
        predictions.labels, predictions.predicted, labels=range(NUM_CLASSES)
    )
    assert (confusion_matrix(predictions) == expected).all()
    assert (np.stack(list(confusion_rows(predictions))) == expected).all()
    some = np.array([4, 1])
    assert (confusion_matrix(predictions, some) == expected[np.ix_(some, some)]).all()


def test_most_confused_leaves_right_answers_and_rare_mistakes_out() -> None:
    matrix = np.array([[50, 3, 0], [9, 40, 3], [1, 0, 60]])
    found = of_matrix(matrix)
    assert most_confused(found, min_count=3) == [(1, 0, 9), (0, 1, 3), (1, 2, 3)]
    assert most_confused(found)[-1] == (2, 0, 1)
    assert most_confused(of_matrix(np.diag([4, 5]))) == []
    assert most_confused_classes(found, 2).tolist() == [0, 1]


def test_mcnemar_is_the_exact_binomial_test() -> None:
    first = np.array([True] * 40 + [True] * 12 + [False] * 3 + [False] * 5)
    second = np.array([True] * 40 + [False] * 12 + [True] * 3 + [False] * 5)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (12, 3)
    # two tails of 15 throws of a fair coin
    assert found.p_value == pytest.approx(2 * stats.binom.cdf(3, 15, 0.5))
    assert mcnemar(second, first).p_value == pytest.approx(found.p_value)
    assert mcnemar(first, first) == (0, 0, 1.0)
