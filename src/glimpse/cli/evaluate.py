"""`glimpse evaluate`: score a trained network, or the folds of a cross-validation."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glimpse.cli.errors import one_line_errors
from glimpse.cli.options import Out, RunPath, Set, Split, SplitName, Trust, output_folder
from glimpse.cli.table import FEW_CLASSES, print_table
from glimpse.errors import UserError
from glimpse.files import subfolder
from glimpse.found_checkpoint import find_checkpoint, newest_run
from glimpse.streams import say
from glimpse.text import decimals

if TYPE_CHECKING:
    from glimpse.insight.scores import Score, Scores
    from glimpse.runs.evaluate import Evaluation
    from glimpse.runs.folds import Pooled

NUM_WORST = 10  # with more classes, print this many with the lowest F1


def evaluate(
    run: RunPath,
    split: Split = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="score all images of this folder, which has one folder per class, or of this table",
            show_default=False,
        ),
    ] = None,
    out: Out = None,
    every_class: Annotated[bool, typer.Option("--all", help="print every class")] = False,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Compute accuracy, top 5, calibration, precision, recall, F1, and 95 % intervals.

    Writes scores.json, classes.csv, confusion.csv, confusion.png and predictions.csv (one row per
    image) to RUN/evaluation/SPLIT. The default split is the test set if there is one, otherwise the
    validation set. The metrics that the run was started with (metrics=[…]) are computed too.

    With --data, all images of another folder or table are scored. Their classes are those of the run,
    or some of them. The files go to RUN/evaluation/on-NAME, after the name of the folder or table (on-NAME-2
    if other images of this name were scored before).

    Given the folder of a cross-validation (data.folds), this pools the predictions of each image by
    the run that did not train on it, and writes to FOLDER/evaluation/out-of-fold.

    Example: glimpse evaluate outputs/digits-linear/2026-11-23_10-15-00-3fa2b1 --split val
    """
    with one_line_errors(settings or (), has_set=True):
        if newest_run(run) is None:
            find_checkpoint(run)  # before torch is imported
        from glimpse.runs.evaluate import EVALUATION, evaluate_folds, evaluate_run, place_for
        from glimpse.runs.folds import OUT_OF_FOLD, is_folder_of_runs, pooled_folds
        from glimpse.runs.other_images import of_the_table
        from glimpse.runs.trained import TrainedRun

        if data is not None and (split is not None or is_folder_of_runs(run)):
            raise UserError(
                "--data scores all images with one run: leave out --split, and name one run"
            )
        if is_folder_of_runs(run):
            if split not in (None, SplitName.val):
                raise UserError(
                    f"--split {split}: only the validation images of folds are pooled: leave out --split"
                )
            whole = output_folder(run, out, f"{EVALUATION}/{OUT_OF_FOLD}")
            for pooled in pooled_folds(run, settings or (), trust or ()):
                folder = subfolder(whole, pooled.name) if pooled.name else whole
                evaluation = evaluate_folds(pooled, folder)
                _print_folds(pooled, evaluation)
                _print_evaluation(evaluation, folder, every_class)
            return
        overrides, of_table = list(settings or ()), dict[str, Any]()
        if data is not None:
            of_table, overrides = of_the_table(overrides, data)
        trained = TrainedRun(run, overrides=overrides, trust=trust or ())
        if data is not None:
            trained.score_on(data, of_table)
        chosen = trained.require_split(split, default="test")
        place = chosen if data is None else place_for(trained.folder, data)
        folder = output_folder(trained.folder, out, f"{EVALUATION}/{place}")
        evaluation = evaluate_run(trained, chosen, folder, images=data)
        which = f"{chosen} images" if data is None else f"images of {data}"
        say(f"{trained.name}: epoch {trained.epoch}, {evaluation.num_images:,} {which}\n")
        _print_evaluation(evaluation, folder, every_class)


def _cells(score: "Score") -> tuple[str, str]:
    return _cell(score), "" if math.isnan(
        score.low
    ) else f"{decimals(score.low)} to {decimals(score.high)}"


def _cell(score: "Score") -> str:
    return "" if math.isnan(score.value) else decimals(score.value)


def _print_folds(pooled: "Pooled", evaluation: "Evaluation") -> None:
    accuracies = ", ".join(f"{value:.4f}" for value in pooled.accuracies)
    say(
        f"{pooled.label}: {evaluation.num_images:,} images, each predicted by the run that did not train on "
        f"it\naccuracy of each fold: {accuracies}\nthe images of a fold chose the best epoch of their run, so "
        "these scores are somewhat too good\n"
    )


def _print_evaluation(evaluation: "Evaluation", folder: Path, every_class: bool) -> None:
    rows = [(name, *_cells(value)) for name, value in evaluation.scores.overall.items()]
    for name, value in evaluation.metrics.items():
        bounds = evaluation.intervals.get(name)
        rows.append((name, f"{value:.4f}", f"{bounds[0]:.4f} to {bounds[1]:.4f}" if bounds else ""))
    rows.append(("majority accuracy", f"{evaluation.majority:.4f}", ""))
    print_table(("score", "value", "95 % interval"), rows)
    say()
    _print_classes(evaluation.scores, every_class)
    say(f"\nwritten: {folder}")


def _print_classes(scores: "Scores", every_class: bool) -> None:
    shown = list(scores.classes)
    if len(shown) > FEW_CLASSES and not every_class:
        with_images = [c for c in shown if c.num_images]
        shown = sorted(with_images, key=lambda c: c.f1.value)[:NUM_WORST]
        which = "with images" if len(with_images) == len(shown) else "with the lowest F1"
        say(f"the {len(shown)} of {len(scores.classes)} classes {which} (--all prints every class)")
    print_table(
        ("class", "images", "precision", "recall", "F1", "95 % of F1"),
        [
            (c.name, f"{c.num_images:,}", _cell(c.precision), _cell(c.recall), *_cells(c.f1))
            for c in shown
        ],
    )
