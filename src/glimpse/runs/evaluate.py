"""Evaluate a trained network on a split and write the scores, with their intervals, to files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from glimpse.assembly import build_metrics
from glimpse.files import write_csv, write_json
from glimpse.insight.confusion import confusion_rows
from glimpse.insight.predictions import Predictions, names_of, write_predictions
from glimpse.insight.scores import ClassScores, Scores, score
from glimpse.plots.confusion import draw_confusion
from glimpse.records import json_or_empty
from glimpse.runs.folds import OUT_OF_FOLD, Pooled
from glimpse.runs.trained import TrainedRun
from glimpse.text import as_utf8

EVALUATION = "evaluation"  # the folder of a run for its scores
SCORES = "scores.json"
KINDS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Evaluation:
    """The results on a split.

    Attributes:
        scores: The scores with intervals.
        metrics: The metrics that the run's configuration adds.
        intervals: The bounds of the metrics that have an interval.
        num_images: The number of images.
        majority: The accuracy of the majority-class baseline.
    """

    scores: Scores
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    num_images: int
    majority: float


def evaluate_run(
    trained: TrainedRun, split: str, folder: Path, *, images: Path | None
) -> Evaluation:
    """Predict a split, and write scores.json, classes.csv, confusion.csv, confusion.png and
    predictions.csv.

    Args:
        trained: The network and its data.
        split: A split of its data.
        folder: The folder to write to.
        images: The folder or table that its data is, if it is not the run's own (`score_on`).
    """
    which = {"split": split} if images is None else {"data": as_utf8(images.resolve())}
    about = {"checkpoint": trained.checkpoint.name, "epoch": trained.epoch, **which}
    title = f"{trained.name}, {split if images is None else as_utf8(images)}"
    names = names_of(trained.data, split)
    return evaluate(trained, trained.predict_split(split), names, about, title, folder)


def place_for(run: Path, images: Path) -> str:
    """The folder in `evaluation/` of a run for the scores of these images, such as on-photos.

    It is on-photos-2 and so on if others of this name were scored before.
    """
    images = images.resolve()
    names = (f"on-{images.name}" + (f"-{number}" if number > 1 else "") for number in count(1))
    free = (None, as_utf8(images))
    return next(n for n in names if json_or_empty(run / EVALUATION / n, SCORES).get("data") in free)


def evaluate_folds(pooled: Pooled, folder: Path) -> Evaluation:
    """Write the same files for the pooled predictions of all folds."""
    about = {"split": OUT_OF_FOLD, "fold_acc": pooled.accuracies}
    title = f"{pooled.label}, {OUT_OF_FOLD}"
    return evaluate(pooled.first, pooled.found, pooled.image_names, about, title, folder)


def evaluate(
    trained: TrainedRun,
    found: Predictions,
    image_names: list[str],
    about: Mapping[str, Any],
    title: str,
    folder: Path,
) -> Evaluation:
    """Score predictions, and write them.

    Args:
        trained: A network whose configuration names the metrics.
        found: The predictions.
        image_names: The name of each image.
        about: Entries that scores.json lists before the scores.
        title: The title of the confusion matrix.
        folder: The folder to write to.
    """
    scores = score(found)
    counts = np.bincount(found.labels)
    scoring = build_metrics(trained.config, trained.spec)
    metrics = scoring.of(found.logits, found.labels) if scoring else {}
    intervals = scoring.intervals(found.logits, found.labels) if scoring else {}
    evaluation = Evaluation(
        scores, metrics, intervals, len(found), float(counts.max() / counts.sum())
    )
    names = found.class_names
    written = {
        **about,
        "num_images": len(found),
        "majority_acc": evaluation.majority,
        "scores": {
            name: {part: None if math.isnan(x) else x for part, x in asdict(value).items()}
            for name, value in scores.overall.items()
        },
        "metrics": metrics,
        "metric_intervals": intervals,
    }
    write_json(folder / SCORES, written)
    bounds = [f"{kind}{end}" for kind in KINDS for end in ("", "_low", "_high")]
    header = ("class", "images", "predicted", *bounds)
    write_csv(folder / "classes.csv", header, map(_row, scores.classes))
    rows = ((name, *row.tolist()) for name, row in zip(names, confusion_rows(found), strict=True))
    write_csv(folder / "confusion.csv", ("actual \\ predicted", *names), rows)
    title = f"{title}: accuracy {found.correct.mean():.4f}"
    draw_confusion(found, title, folder / "confusion.png")
    write_predictions(found, image_names, folder / "predictions.csv")
    return evaluation


def _row(of: ClassScores) -> Sequence[Any]:
    values = [value for kind in KINDS for value in asdict(getattr(of, kind)).values()]
    return (
        of.name,
        of.num_images,
        of.num_predicted,
        *("" if math.isnan(value) else f"{value:.6f}" for value in values),
    )
