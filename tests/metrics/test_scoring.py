"""The metrics that `metrics=[…]` adds: their values, in a run and after it, and what is refused."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryRecall, MulticlassF1Score

from conftest import Execute, choices, composed
from glimpse.assembly import build_data, build_metrics
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.insight.predictions import Predictions
from glimpse.insight.scores import score
from glimpse.metrics.scoring import Scoring
from glimpse.runs.trained import TrainedRun

EVERY = choices("metrics")
TINY = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=60", "data.num_val=31",
    "data.num_classes=6", "data.batch_size=16", "model=linear", "trainer=cpu",
    "trainer.max_epochs=2",
)  # fmt: skip


def scoring_of(num_classes: int, *names: str) -> Scoring:
    config, _ = composed(f"metrics=[{','.join(names)}]")
    spec = ImageSpec(num_classes, tuple("abcdefghij"[:num_classes]), 1, 8, 8, (0.0,), (1.0,))
    found = build_metrics(config, spec)
    assert found is not None
    return found


def expected(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """By scikit-learn, with classes without images left out where it refuses them."""
    answers, num_classes = logits.argmax(1), logits.shape[1]
    probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
    occurring = np.unique(labels)
    macro = {"average": "macro", "zero_division": 0}
    one_hot = np.eye(num_classes)[labels]
    curves = [(one_hot[:, k], probabilities[:, k]) for k in occurring]
    matrix = sk.confusion_matrix(labels, answers, labels=range(num_classes))
    hits, actual, called = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    others = len(labels) - actual
    seen = actual + called > 0
    found = Predictions("val", tuple("abcdefghij"[:num_classes]), logits, labels)
    return {
        "f1": sk.f1_score(labels, answers, **macro),
        "precision": sk.precision_score(labels, answers, **macro),
        "recall": sk.recall_score(labels, answers, **macro),
        "jaccard": sk.jaccard_score(labels, answers, **macro),
        "kappa": sk.cohen_kappa_score(labels, answers),
        "mcc": sk.matthews_corrcoef(labels, answers),
        "balanced_accuracy": (hits[occurring] / actual[occurring]).mean(),
        "specificity": (1 - (called - hits) / others)[seen].mean(),
        "auroc": np.mean([sk.roc_auc_score(*curve) for curve in curves]),
        "average_precision": np.mean([sk.average_precision_score(*curve) for curve in curves]),
        "calibration": score(found, num_resamples=1).overall["calibration_error"].value,
    }


@pytest.mark.parametrize("labels", [[0] * 99 + [1], [1] * 99 + [0], [0] * 10, [1] * 10])
@pytest.mark.parametrize("answer", [0, 1])
def test_one_answer_for_all_images_has_no_correlation(labels: list[int], answer: int) -> None:
    logits = np.zeros((len(labels), 2), np.float32)
    logits[:, answer] = 1
    assert scoring_of(2, "mcc").of(logits, np.array(labels)) == {"mcc": 0.0}


@pytest.mark.parametrize(("num_classes", "occurring"), [(2, 2), (5, 5), (7, 4)])
def test_values_are_those_of_scikit_learn(num_classes: int, occurring: int) -> None:
    """In batches of any size; also where classes have no image but are predicted."""
    random = np.random.default_rng(0)
    labels = random.integers(occurring, size=203)
    logits = random.normal(size=(203, num_classes)).astype(np.float32)
    logits[np.arange(203), labels] += 1.5
    logits[:20] *= 50  # sure ones, of confidence 1
    scoring = scoring_of(num_classes, *EVERY)
    scoring.start("val", torch.device("cpu"))
    for part in np.array_split(np.arange(203), 9):
        scoring.add("val", torch.from_numpy(logits[part]), torch.from_numpy(labels[part]))
    found = scoring.finish("val")
    wanted = expected(logits, labels)
    assert set(found) == set(wanted) == set(EVERY)
    for name in EVERY:
        assert found[name] == pytest.approx(wanted[name], abs=2e-6), name


def test_a_trial_has_few_images_whatever_the_number_of_classes() -> None:
    sizes = []

    class Sizes(Keeps):
        def update(self, preds: Tensor, target: Tensor) -> None:
            super().update(preds, target)
            sizes.append(tuple(preds.shape))

    for num_classes in (3, 5_000):
        Scoring({"mine": Sizes()}, num_classes)
    assert sizes == [(6, 3), (2_000, 5_000)]


def test_autocast_changes_no_value() -> None:
    logits = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(500) % 4
    values = []
    for enabled in (False, True):
        scoring = scoring_of(4, "calibration", "f1")
        scoring.start("val", torch.device("cpu"))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scoring.add("val", logits, labels)
        values.append(scoring.finish("val"))
    assert values[0] == values[1]


def test_the_bootstrap_is_that_of_the_other_scores() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=150)
    logits = random.normal(size=(150, 3)).astype(np.float32)
    logits[np.arange(150), labels] += 1.5
    scoring = scoring_of(3, "f1", "calibration", "balanced_accuracy")
    found = scoring.intervals(logits, labels)
    assert "calibration" not in found
    others = score(Predictions("val", tuple("abc"), logits, labels)).overall
    for name, other in (("f1", "mean_f1"), ("balanced_accuracy", "mean_recall")):
        assert found[name] == pytest.approx((others[other].low, others[other].high), abs=0.02)
    assert scoring.intervals(np.zeros((40_000, 3), np.float32), np.zeros(40_000, np.int64)) == {}


class Keeps(Metric):
    """Accuracy, in attributes that reset() does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.right, self.all = torch.tensor(0.0), 0

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.right = self.right + (preds.argmax(1) == target).sum()
        self.all += len(target)

    def compute(self) -> Tensor:
        return self.right / self.all


def test_each_resample_is_measured_alone() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=200)
    logits = random.normal(size=(200, 3)).astype(np.float32)
    low, high = Scoring({"mine": Keeps()}, 3).intervals(logits, labels)["mine"]
    assert high - low > 0.1


def test_what_is_undefined_is_said_once_and_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    scoring = scoring_of(3, "auroc", "f1")
    logits, labels = np.eye(3, dtype=np.float32), np.zeros(3, np.int64)
    for _ in range(2):
        assert set(scoring.of(logits, labels)) == set(scoring.intervals(logits, labels)) == {"f1"}
    assert capsys.readouterr().out.count("auroc is nan on these images") == 1


def test_a_metric_for_two_classes_receives_the_second_one() -> None:
    scoring = Scoring({"sensitivity": BinaryRecall()}, 2)
    logits = np.array([[0, 1], [1, 0], [0, 1], [0, 1]], np.float32)
    assert scoring.of(logits, np.array([1, 1, 1, 0]))["sensitivity"] == pytest.approx(2 / 3)


class Cost(Metric):
    """A user's own: the mean cost of the answers."""

    higher_is_better = False
    total: Tensor

    def __init__(self, price: float = 1.0) -> None:
        super().__init__()
        self.price = price
        self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        wrong = (preds.argmax(1) != target).sum()
        self.total = self.total + torch.stack((wrong * self.price, torch.tensor(len(target))))

    def compute(self) -> Tensor:
        return self.total[0] / self.total[1]


@pytest.mark.parametrize(
    ("metric", "num_classes", "message"),
    [
        (MulticlassF1Score(3, average=None), 3, "expected one number: type metrics.mine.average"),
        (BinaryRecall(), 3, "BinaryRecall is for two classes, and the data has 3"),
        (MulticlassF1Score(4), 3, "metrics.mine cannot measure probabilities (6, 3)"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    metric: Metric, num_classes: int, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        Scoring({"mine": metric}, num_classes)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="every run measures acc"):
        Scoring({"acc": metric}, num_classes)


def test_metrics_of_one_kind_do_not_share_their_sums() -> None:
    """torchmetrics would merge those whose first batch gives equal sums."""
    scoring = Scoring({"one": Cost(), "two": Cost(price=2.0)}, 2)
    scoring.start("val", torch.device("cpu"))
    right = torch.tensor([[1.0, 0.0]])
    for label in (0, 1):
        scoring.add("val", right, torch.tensor([label]))
    assert scoring.finish("val") == {"one": 0.5, "two": 1.0}


# In a run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    return ("f1", "auroc", "balanced_accuracy", "calibration")


def test_a_run_records_its_metrics_everywhere(
    execute: Execute, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = execute(
        *TINY, f"metrics=[{','.join(names)}]", "monitor=val/calibration", "tta=flip", "logger=csv",
        curves=True,
    )  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["monitor"], summary["mode"]) == ("val/calibration", "min")
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lowest = min(rows, key=lambda row: float(row["val/calibration"]))
    assert summary["best_epoch"] == int(lowest["epoch"])
    trained = TrainedRun(folder)
    scoring = build_metrics(trained.config, trained.spec)
    assert scoring is not None
    for split in ("val", "test"):
        found = trained.predict(split)
        for name, value in scoring.of(found.logits, found.labels).items():
            assert summary["metrics"][f"{split}/{name}"] == pytest.approx(value, abs=1e-6)
            assert f"{split}/{name}_flip" in summary["metrics"]
    for name in names:
        assert f"train/{name}" not in summary["metrics"]
        assert float(lowest[f"val/{name}"]) == summary["metrics"][f"val/{name}"]
    printed = capsys.readouterr().out
    assert f"best epoch {summary['best_epoch']} by val/calibration" in printed
    assert f"f1 {summary['metrics']['test/f1']:.4f}" in printed
    logged = (folder / "csv" / "metrics.csv").read_text().splitlines()[0]
    assert {f"val/{name}" for name in names} <= set(logged.split(","))


def test_a_metric_whose_name_hides_its_mode_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glimpse.metrics.by_class.Cost", Cost, raising=False)
    config, _ = composed(*TINY)
    config.metrics = {"cost": {"_target_": "glimpse.metrics.by_class.Cost", "price": 3.0}}
    config.monitor = "val/cost"
    spec = build_data(config).spec
    with pytest.raises(UserError, match="but the metric declares min; type mode=min"):
        build_metrics(config, spec)
    config.mode = "min"
    scoring = build_metrics(config, spec)
    assert scoring is not None
    wrong = scoring.of(np.eye(6, dtype=np.float32), (np.arange(6) + 1) % 6)
    assert wrong == {"cost": 3.0}


def test_a_run_without_metrics_measures_what_it_always_did(execute: Execute) -> None:
    folder = execute(*TINY, "logger=none")
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header == (
        "epoch,step,train/loss,train/acc,val/loss,val/acc,val/top5,lr,images_per_second,seconds"
    )
    assert math.isfinite(json.loads((folder / "summary.json").read_text())["metrics"]["val/loss"])
