"""`glimpse predict` and `glimpse export`: use a trained network on new images or elsewhere."""

import csv
import os
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glimpse.cli.errors import as_options, one_line_errors, require_image, require_no_setting
from glimpse.cli.options import RunPath, Set, Trust, output_file, trained_run
from glimpse.cli.table import print_table
from glimpse.progress_bar import progress_bar, without_bars
from glimpse.streams import printable, say
from glimpse.text import as_utf8, json_of, plural

if TYPE_CHECKING:
    from glimpse.runs.trained import TrainedRun

Row = dict[str, Any]  # the name of an image, and its most likely classes with their probabilities


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
    """Predict the most likely classes of each image, five by default, with their probabilities.

    Images are preprocessed as in the run. CSV and JSON are written while the command runs, so an
    interrupted command keeps what it has written. If a file is missing or cannot be read, or a
    folder has no image, the command names it on stderr, predicts the others, and exits with 1.

    Example: glimpse predict outputs/pets-pretrained/2026-11-23_10-15-00-3fa2b1 photos --format csv
    """
    with one_line_errors(settings or ()):
        require_no_setting(images)
        if not any(map(os.path.lexists, images)):
            require_image(images[0])
    with trained_run(run, settings, trust) as trained:
        from glimpse.runs.predict import image_files

        given = image_files(images)
        for remark in given.remarks:
            say(f"note: {remark}", file=sys.stderr)
        for error in given.errors:
            say(f"error: {error}", file=sys.stderr)
        failed: list[Path] = []
        # On a terminal, a bar would stand between the rows.
        shows_bar = output_format is Format.table or not sys.stdout.isatty()
        rows = _predicted(trained, given.files, top, failed, shows_bar=shows_bar)
        _print_predictions(rows, output_format)
        if failed:
            of_all = f"of {plural(len(given.files), 'image')}"
            say(f"{len(failed)} {of_all} could not be predicted", file=sys.stderr)
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


def _predicted(
    trained: "TrainedRun", files: list[Path], top: int, failed: list[Path], *, shows_bar: bool
) -> Iterator[Row]:
    """Yield the rows in order as they arrive. Print the errors of other files, and add these to
    `failed`."""
    from glimpse.runs.predict import predict_files

    with progress_bar(
        "predicting", len(files), unit="image", vanishes=True, shown=shows_bar
    ) as bar:
        for answer in predict_files(trained, files, top=top):
            bar.update()
            if answer.error is None:
                yield {"image": as_utf8(answer.path), "top": list(answer.top)}
                continue
            with without_bars():
                say(f"error: {as_options(answer.error)}", file=sys.stderr)
            failed.append(answer.path)


def _print_predictions(rows: Iterable[Row], output_format: Format) -> None:
    if output_format is Format.json:
        _print_json(rows)
    elif output_format is Format.csv:
        shown = printable if sys.stdout.isatty() else str  # a program needs the names as they are
        writer = csv.writer(sys.stdout)
        writer.writerow(("image", "rank", "class", "probability"))
        for row in rows:
            for rank, (name, p) in enumerate(row["top"], 1):
                writer.writerow((shown(row["image"]), rank, shown(name), f"{p:.6f}"))
    elif found := list(rows):
        columns = [f"{rank}" for rank in range(1, len(found[0]["top"]) + 1)]
        print_table(
            ("image", *columns),
            [(r["image"], *(f"{name} {p:.3f}" for name, p in r["top"])) for r in found],
        )


def _print_json(rows: Iterable[Row]) -> None:
    """Print a list as it becomes known. It is closed even if an error or Ctrl-C ends it."""
    before = "["
    try:
        for row in rows:
            top = [{"class": name, "probability": p} for name, p in row["top"]]
            say(before, indent(json_of(row | {"top": top}), "  "), sep="\n", end="")
            before = ","
    finally:
        say("[]" if before == "[" else "\n]")
