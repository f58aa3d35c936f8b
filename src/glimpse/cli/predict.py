"""`glimpse predict` and `glimpse export`: use a trained network on new images or elsewhere."""

import csv
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from glimpse.cli.errors import as_options, one_line_errors, require_image, require_no_setting
from glimpse.cli.options import RunPath, Set, Trust, output_file, trained_run
from glimpse.cli.table import print_table
from glimpse.streams import printable, say
from glimpse.text import as_utf8, json_of, plural


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


def _named(text: str) -> Path:
    if not text:  # as a path, it would be the current folder
        raise typer.BadParameter("found an empty name, expected an image file or a folder")
    return Path(text)


def predict(
    run: RunPath,
    images: Annotated[
        list[Path],
        typer.Argument(
            help="image files, or folders of images", metavar="IMAGE…|FOLDER", parser=_named
        ),
    ],
    output_format: Annotated[Format, typer.Option("--format", help="the output format")] = (
        Format.table
    ),
    top: Annotated[int, typer.Option(help="number of classes", min=1)] = 5,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Predict the five most likely classes of each image, with their probabilities.

    Images are preprocessed as in the run. If a file is missing or cannot be read, or a folder has
    no image, the command names it on stderr, predicts the others, and exits with 1.

    Example: glimpse predict outputs/pets-pretrained/2026-11-23_10-15-00-3fa2b1 photos --format csv
    """
    with one_line_errors(settings or ()):
        require_no_setting(images)
        if not any(map(os.path.lexists, images)):
            require_image(images[0])
    with trained_run(run, settings, trust) as trained:
        from glimpse.runs.predict import image_files, predict_files

        given = image_files(images)
        for remark in given.remarks:
            say(f"note: {remark}", file=sys.stderr)
        for error in given.errors:
            say(f"error: {error}", file=sys.stderr)
        failed = 0
        rows: list[dict[str, Any]] = []
        for answer in predict_files(trained, given.files, top=top):
            if answer.error is not None:
                say(f"error: {as_options(answer.error)}", file=sys.stderr)
                failed += 1
            else:
                rows.append({"image": as_utf8(answer.path), "top": list(answer.top)})
        _print_predictions(rows, output_format)
        if failed:
            of_all = f"of {plural(len(given.files), 'image')}"
            say(f"{failed} {of_all} could not be predicted", file=sys.stderr)
        if failed or given.errors:
            raise typer.Exit(1)


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

    The exported network computes in fp32. It is compared with the original in fp32 on validation
    images, and the largest difference in probability is printed. If it exceeds 0.001, the command
    fails and writes nothing. If the run used another precision, the difference at that precision is
    printed too. With safetensors, the file contains only the weights, for plain torchvision, timm
    or PyTorch, and a model card, README.md, is written beside it.

    Example: glimpse export outputs/digits-linear/2026-11-23_10-15-00-3fa2b1 --to onnx
    """
    with trained_run(run, settings, trust) as trained:
        from glimpse.runs.export import ENDINGS, export_run
        from glimpse.runs.share import share_run

        path = output_file(trained.folder, out, "export", f"model{ENDINGS[target.value]}")
        is_shared = target is Target.safetensors
        lines = (
            share_run(trained, path)
            if is_shared
            else export_run(trained, path, target=target.value)
        )
        for line in lines:
            say(line)


def _print_predictions(rows: list[dict[str, Any]], output_format: Format) -> None:
    if output_format is Format.json:
        for row in rows:
            row["top"] = [{"class": name, "probability": p} for name, p in row["top"]]
        say(json_of(rows))
    elif output_format is Format.csv:
        shown = printable if sys.stdout.isatty() else str  # a program needs the names as they are
        writer = csv.writer(sys.stdout)
        writer.writerow(("image", "rank", "class", "probability"))
        for row in rows:
            for rank, (name, p) in enumerate(row["top"], 1):
                writer.writerow((shown(row["image"]), rank, shown(name), f"{p:.6f}"))
    elif rows:
        columns = [f"{rank}" for rank in range(1, len(rows[0]["top"]) + 1)]
        print_table(
            ("image", *columns),
            [(r["image"], *(f"{name} {p:.3f}" for name, p in r["top"])) for r in rows],
        )
