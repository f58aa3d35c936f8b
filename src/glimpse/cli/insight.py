"""`glimpse evaluate`, `confused`, `losses`, `predict`, `look`, `shift` and `export`.

These commands show what a trained network has learned and where it fails. They need only a run
folder or a checkpoint. Heavy modules are imported only after the command line has been parsed.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glimpse.cli.errors import one_line_errors, require_png
from glimpse.cli.table import print_table
from glimpse.errors import UserError
from glimpse.files import make_folder, subfolder
from glimpse.streams import printable, say
from glimpse.text import as_utf8, json_of

if TYPE_CHECKING:
    from glimpse.insight.scores import Score, Scores
    from glimpse.runs.evaluate import Evaluation
    from glimpse.runs.trained import TrainedRun

FEW_CLASSES = 20  # up to this many classes are all printed
NUM_WORST = 10  # with more classes, print this many with the lowest F1
MAX_SHIFT = 8  # pixels

app = typer.Typer()


class Format(StrEnum):
    """The output formats of a command."""

    table = "table"
    csv = "csv"
    json = "json"


class Target(StrEnum):
    """The formats a network can be exported to."""

    onnx = "onnx"
    torch_export = "torch_export"
    safetensors = "safetensors"


class SplitName(StrEnum):
    """The splits of a dataset."""

    train = "train"
    val = "val"
    test = "test"


RunPath = Annotated[
    Path,
    typer.Argument(help="a run folder (uses its best checkpoint) or a checkpoint", metavar="RUN"),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="override a setting of the run, such as data_dir=/data"
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PACKAGE",
        envvar="GLIMPSE_TRUST",
        help="a package of your own that the run's network or dataset comes from",
    ),
]
Split = Annotated[SplitName | None, typer.Option(help="the split to use")]
Out = Annotated[Path | None, typer.Option(help="the folder to write to", show_default=False)]


@app.command()
def evaluate(
    run: RunPath,
    split: Split = None,
    out: Out = None,
    every_class: Annotated[bool, typer.Option("--all", help="print every class")] = False,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Compute accuracy, top 5, calibration, precision, recall, F1, and 95 % bootstrap intervals.

    Writes scores.json, classes.csv, confusion.csv, confusion.png and predictions.csv (one row per
    image) to RUN/evaluation/SPLIT. The default split is the test set if there is one, otherwise the
    validation set. The metrics that the run was started with (metrics=[…]) are computed too.

    Given the folder of a cross-validation (data.folds), this pools the predictions of each image by
    the run that did not train on it, and writes to FOLDER/evaluation/out-of-fold.

    Example: glimpse evaluate outputs/digits-linear/2026-11-23_10-15-00-3fa2b1 --split val
    """
    with one_line_errors(settings or ()):
        from glimpse.runs.evaluate import evaluate_folds, evaluate_run
        from glimpse.runs.folds import OUT_OF_FOLD, is_folder_of_runs, pooled_folds
        from glimpse.runs.trained import TrainedRun

        if is_folder_of_runs(run):
            if split not in (None, SplitName.val):
                raise UserError(f"--split {split}: of folds, only the validation images are pooled")
            for pooled in pooled_folds(run, settings or (), trust or ()):
                folder = out or subfolder(run, f"evaluation/{OUT_OF_FOLD}")
                folder = subfolder(folder, pooled.name) if pooled.name else folder
                make_folder(folder)
                evaluation = evaluate_folds(pooled, folder)
                accuracies = ", ".join(f"{value:.4f}" for value in pooled.accuracies)
                say(f"{pooled.label}: {evaluation.num_images:,} images, each by the fold that")
                say(f"did not train on it; accuracy of the folds: {accuracies}\n")
                _print_evaluation(evaluation, folder, every_class)
            return
        trained = TrainedRun(run, overrides=settings or (), trust=trust or ())
        chosen = trained.require_split(split, default="test")
        folder = _folder(trained, out, f"evaluation/{chosen}")
        evaluation = evaluate_run(trained, chosen, folder)
        say(f"{trained.name}: epoch {trained.epoch}, {evaluation.num_images:,} {chosen} images\n")
        _print_evaluation(evaluation, folder, every_class)


@app.command()
def confused(
    run: RunPath,
    min_count: Annotated[
        int, typer.Option("--min", help="list pairs with at least this many mistakes", min=1)
    ] = 5,
    split: Split = None,
    out: Out = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """List the pairs of classes that are confused most often, and draw examples of the worst pairs.

    The default split is the validation set. The picture is written to RUN/figures/most_confused.png
    (most_confused-test.png for the test set).

    Example: glimpse confused outputs/cifar10-convnet/2026-11-23_10-15-00-3fa2b1 --min 10
    """
    with _trained(run, settings, trust) as trained:
        from glimpse.insight.confusion import confusion_matrix, most_confused
        from glimpse.insight.predictions import images_of
        from glimpse.plots.mistakes import draw_most_confused

        chosen = trained.require_split(split, default="val")
        found = trained.predict_split(chosen)
        matrix = confusion_matrix(found)
        pairs = most_confused(matrix, min_count=min_count)
        names = found.class_names
        print_table(
            ("actual", "predicted", "count", "of"),
            [(names[a], names[p], str(n), f"{matrix[a].sum():,}") for a, p, n in pairs],
        )
        if not pairs:
            say(f"no pair has at least {min_count} mistakes: type --min 1 to list every pair")
        path = _folder(trained, out, "figures") / f"most_confused{_ending(chosen)}.png"
        draw_most_confused(
            found,
            most_confused(matrix),
            partial(images_of, trained.data, chosen),
            f"{trained.name}: most confused {chosen} images",
            path,
        )
        say(f"written: {path}")


@app.command()
def losses(
    run: RunPath,
    num: Annotated[int, typer.Option("--num", help="number of images", min=1, max=400)] = 24,
    split: Split = None,
    out: Out = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Show the images with the highest loss: the most confident mistakes, and often wrong labels.

    The default split is the validation set. The picture is written to RUN/figures/top_losses.png
    (top_losses-test.png for the test set).

    Example: glimpse losses outputs/digits-linear/2026-11-23_10-15-00-3fa2b1 --num 40
    """
    with _trained(run, settings, trust) as trained:
        import numpy as np

        from glimpse.insight.predictions import images_of, names_of
        from glimpse.plots.mistakes import draw_answers

        chosen = trained.require_split(split, default="val")
        found = trained.predict_split(chosen)
        worst = np.argsort(-found.losses, kind="stable")[:num]
        names, files = found.class_names, names_of(trained.data, chosen)
        print_table(
            ("loss", "actual", "predicted", "probability", "of actual", "image"),
            [
                (
                    f"{found.losses[i]:.3f}",
                    names[found.labels[i]],
                    names[found.predicted[i]],
                    f"{found.confidence[i]:.4f}",
                    f"{np.exp(-found.losses[i]):.4f}",
                    files[i],
                )
                for i in worst
            ],
        )
        path = _folder(trained, out, "figures") / f"top_losses{_ending(chosen)}.png"
        draw_answers(
            found,
            worst,
            partial(images_of, trained.data, chosen),
            f"{chosen} images with the highest loss",
            path,
        )
        say(f"written: {path}")


@app.command()
def predict(
    run: RunPath,
    images: Annotated[
        list[Path],
        typer.Argument(help="image files, or folders of images", metavar="IMAGE…|FOLDER"),
    ],
    output_format: Annotated[Format, typer.Option("--format", help="the output format")] = (
        Format.table
    ),
    top: Annotated[int, typer.Option(help="number of classes", min=1)] = 5,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Predict the five most likely classes of each image, with their probabilities.

    Images are preprocessed as in the run. If a file cannot be read, the command names it on stderr,
    predicts the others, and exits with 1.

    Example: glimpse predict outputs/pets-pretrained/2026-11-23_10-15-00-3fa2b1 photos --format csv
    """
    with _trained(run, settings, trust) as trained:
        from glimpse.runs.predict import image_files, predict_files

        files, remarks = image_files(images)
        for remark in remarks:
            say(f"note: {remark}", file=sys.stderr)
        failed = 0
        rows: list[dict[str, Any]] = []
        for answer in predict_files(trained, files, top=top):
            if answer.error is not None:
                say(f"error: {answer.error}", file=sys.stderr)
                failed += 1
            else:
                rows.append({"image": as_utf8(answer.path), "top": list(answer.top)})
        _print_predictions(rows, output_format)
        if failed:
            say(f"{failed} of {len(files)} images have no answer", file=sys.stderr)
            raise typer.Exit(1)


@app.command()
def look(
    run: RunPath,
    image: Annotated[
        Path | None,
        typer.Argument(help="an image file (default: the validation image at --position)"),
    ] = None,
    position: Annotated[int, typer.Option(help="index of the validation image", min=0)] = 0,
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="explain this class instead of the predicted one"),
    ] = None,
    out: Out = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Draw the first layer's kernels, each layer's output for one image, and its Grad-CAM.

    Writes first_layer.png, layers.png and, if the network has convolutions, grad_cam.png to
    RUN/look.

    Example: glimpse look outputs/cifar10-convnet/2026-11-23_10-15-00-3fa2b1 cat.jpg
    """
    with _trained(run, settings, trust) as trained:
        from glimpse.runs.look import draw_look

        folder = _folder(trained, out, "look")
        for line in draw_look(
            trained, folder, image=image, position=position, class_name=class_name
        ):
            say(line)


@app.command()
def shift(
    runs: Annotated[list[Path], typer.Argument(help="run folders or checkpoints", metavar="RUN…")],
    max_shift: Annotated[
        int, typer.Option("--max", help="largest shift in pixels", min=1, max=64)
    ] = MAX_SHIFT,
    num: Annotated[
        int, typer.Option("--num", help="number of images to draw from the split", min=1)
    ] = 2000,
    split: Split = None,
    out: Annotated[
        Path | None,
        typer.Option(help="the PNG to write (default: shift.png in the first run's figures/)"),
    ] = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Plot accuracy against the number of pixels by which images are shifted, for one or more runs.

    Each value is the mean over shifts to the left, right, up and down. The default split is the
    validation set.

    Example: glimpse shift outputs/cifar2-mlp/* outputs/cifar2-convnet/* --out shift.png
    """
    with one_line_errors(settings or ()):
        if out:
            require_png(out)
        from glimpse.plots.curves import draw_curves_over
        from glimpse.runs.shift import accuracy_by_shift
        from glimpse.runs.trained import TrainedRun

        distances = list(range(max_shift + 1))
        curves: dict[str, list[float]] = {}
        tested = [TrainedRun(path, overrides=settings or (), trust=trust or ()) for path in runs]
        for trained in tested:
            chosen = trained.require_split(split, default="val")
            curves[trained.name] = accuracy_by_shift(
                trained, chosen, distances=distances, max_images=num
            )
        print_table(
            ("run", *(f"{d} px" for d in distances)),
            [(name, *(f"{a:.4f}" for a in found)) for name, found in curves.items()],
        )
        path = out or _folder(tested[0], None, "figures") / "shift.png"
        draw_curves_over(distances, curves, xlabel="shift (pixels)", ylabel="accuracy", path=path)
        say(f"written: {path}")


@app.command()
def export(
    run: RunPath,
    target: Annotated[Target, typer.Option("--to", help="the export format")],
    out: Annotated[
        Path | None,
        typer.Option(help="the file to write (default: RUN/export/model.onnx, .pt2, …)"),
    ] = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Export one file that maps uint8 images to probabilities, with preprocessing and class names.

    The exported network is compared with the original on validation images, and the largest
    difference in probability is printed. If it exceeds 0.001, the command fails and writes nothing.
    With safetensors, the file holds the weights alone, for plain torchvision, timm or PyTorch, and a
    model card, README.md, is written beside it.

    Example: glimpse export outputs/digits-linear/2026-11-23_10-15-00-3fa2b1 --to onnx
    """
    with _trained(run, settings, trust) as trained:
        from glimpse.runs.export import ENDINGS, export_run
        from glimpse.runs.share import share_run

        path = out or _folder(trained, None, "export") / f"model{ENDINGS[target.value]}"
        make_folder(path.parent)
        is_shared = target is Target.safetensors
        lines = (
            share_run(trained, path)
            if is_shared
            else export_run(trained, path, target=target.value)
        )
        for line in lines:
            say(line)


# Shared helpers -----------------------------------------------------------------------------------


@contextmanager
def _trained(
    path: Path, settings: Sequence[str] | None, trust: Sequence[str] | None
) -> "Iterator[TrainedRun]":
    """Yield the trained run; report any error in one line and exit with code 1."""
    with one_line_errors(settings or ()):
        from glimpse.runs.trained import TrainedRun

        yield TrainedRun(path, overrides=settings or (), trust=trust or ())


def _folder(trained: "TrainedRun", out: Path | None, name: str) -> Path:
    if out is None:
        return subfolder(trained.folder, name)
    make_folder(out)
    return out


def _ending(split: str) -> str:
    """The suffix of a picture's file name.

    It is empty for the validation set, whose pictures replace those drawn by the run.
    """
    return "" if split == "val" else f"-{split}"


def _cells(score: "Score") -> tuple[str, str]:
    return f"{score.value:.4f}", f"{score.low:.4f} to {score.high:.4f}"


def _print_evaluation(evaluation: "Evaluation", folder: Path, every_class: bool) -> None:
    rows = [(name, *_cells(value)) for name, value in evaluation.scores.overall.items()]
    rows += [(name, f"{value:.4f}", "") for name, value in evaluation.metrics.items()]
    rows.append(("majority accuracy", f"{evaluation.majority:.4f}", ""))
    print_table(("score", "value", "95 % interval"), rows)
    say()
    _print_classes(evaluation.scores, every_class)
    say(f"\nwritten: {folder}")


def _print_classes(scores: "Scores", every_class: bool) -> None:
    shown = list(scores.classes)
    if len(shown) > FEW_CLASSES and not every_class:
        shown = sorted(shown, key=lambda c: c.f1.value)[:NUM_WORST]
        say(
            f"the {NUM_WORST} of {len(scores.classes)} classes with the lowest F1 "
            "(--all prints every class)"
        )
    print_table(
        ("class", "images", "precision", "recall", "F1", "95 % of F1"),
        [
            (
                c.name,
                f"{c.num_images:,}",
                f"{c.precision.value:.4f}",
                f"{c.recall.value:.4f}",
                *_cells(c.f1),
            )
            for c in shown
        ],
    )


def _print_predictions(rows: list[dict[str, Any]], output_format: Format) -> None:
    if output_format is Format.json:
        for row in rows:
            row["top"] = [{"class": name, "probability": p} for name, p in row["top"]]
        say(json_of(rows))
    elif output_format is Format.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(("image", "rank", "class", "probability"))
        for row in rows:
            for rank, (name, p) in enumerate(row["top"], 1):
                writer.writerow((printable(row["image"]), rank, printable(name), f"{p:.6f}"))
    elif rows:
        columns = [f"{rank}" for rank in range(1, len(rows[0]["top"]) + 1)]
        print_table(
            ("image", *columns),
            [(r["image"], *(f"{name} {p:.3f}" for name, p in r["top"])) for r in rows],
        )
