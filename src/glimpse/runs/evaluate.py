"""Evaluate a trained network on a split and write the scores, with their intervals, to files."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glimpse.files import replacing, write_json
from glimpse.insight.confusion import confusion_matrix
from glimpse.insight.predictions import names_of, write_predictions
from glimpse.insight.scores import ClassScores, Scores, score
from glimpse.plots.mistakes import draw_confusion
from glimpse.runs.trained import TrainedRun

KINDS = ("precision", "recall", "f1")


def evaluate_run(trained: TrainedRun, split: str, folder: Path) -> tuple[Scores, int, float]:
    """Write scores.json, classes.csv, confusion.csv, confusion.png and predictions.csv.

    Args:
        trained: The network and its data.
        split: A split of its data.
        folder: The folder to write to.

    Returns:
        The scores, the number of images, and the accuracy of the majority-class baseline.
    """
    found = trained.predict_split(split)
    scores, majority = score(found), trained.data.majority_accuracy(split)
    matrix, names = confusion_matrix(found), found.class_names
    about = {
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
        "split": split,
        "num_images": len(found),
        "majority_acc": majority,
        "scores": {name: asdict(value) for name, value in scores.overall.items()},
    }
    write_json(folder / "scores.json", about)
    bounds = [f"{kind}{end}" for kind in KINDS for end in ("", "_low", "_high")]
    _write(
        folder / "classes.csv", ("class", "images", "predicted", *bounds), map(_row, scores.classes)
    )
    rows = [(name, *row) for name, row in zip(names, matrix.tolist(), strict=True)]
    _write(folder / "confusion.csv", ("actual \\ predicted", *names), rows)
    title = f"{trained.name}, {split}: accuracy {found.correct.mean():.4f}"
    draw_confusion(matrix, names, title, folder / "confusion.png")
    write_predictions(found, names_of(trained.data, split), folder / "predictions.csv")
    return scores, len(found), majority


def _row(of: ClassScores) -> Sequence[Any]:
    values = [value for kind in KINDS for value in asdict(getattr(of, kind)).values()]
    return (of.name, of.num_images, of.num_predicted, *(f"{value:.6f}" for value in values))


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
