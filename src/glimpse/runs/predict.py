"""Predict the classes of image files with a trained network."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from glimpse.command import in_shell
from glimpse.config.places import PACKED
from glimpse.data.folders import listing
from glimpse.data.formats import counted
from glimpse.errors import UserError
from glimpse.runs.trained import PREDICTED_TOGETHER, TrainedRun, not_finite


@dataclass(frozen=True)
class Answer:
    """The most likely classes of an image with their probabilities, or why there is no answer."""

    path: Path
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Given:
    """What to predict.

    Attributes:
        files: The files. Those that were named may be missing.
        remarks: Sentences on what was skipped in the folders.
        errors: A sentence for each folder without an image, table or archive.
    """

    files: list[Path]
    remarks: list[str]
    errors: list[str]


def image_files(paths: Sequence[Path]) -> Given:
    """Find the given files, and all image files in the given folders.

    Raises:
        UserError: there is no file.
    """
    files: list[Path] = []
    errors: list[str] = []
    passed_over = Counter[str]()
    for path in paths:
        if not path.is_dir():
            remedy = _instead_of(path)
            if remedy is None:
                files.append(path)
            else:
                errors.append(f"{path} is not an image: {remedy}")
            continue
        inside = listing(path)
        files += map(Path, inside.names)
        if inside.names:
            passed_over += inside.passed_over
        else:
            remarks = counted(inside.passed_over)
            errors.append("; ".join([f"{path}: there is no image file in this folder", *remarks]))
    if not files:
        raise UserError(errors[0])
    return Given(files, counted(passed_over), errors)


def _instead_of(path: Path) -> str | None:
    """What to type instead of a table, archive or array; None for any other file."""
    ending = path.suffix.lower()
    if not path.is_file():
        return None
    if ending in (".csv", ".tsv"):
        return f"type glimpse evaluate <run> {in_shell(f'--data={path}')} for the images of a table"
    if ending in PACKED:
        return "unpack it, and type the unpacked folder"
    if ending in (".npy", ".npz"):
        return "in Python, glimpse.load(<run>).predict takes arrays"
    return None


def predict_files(trained: TrainedRun, files: Sequence[Path], *, top: int) -> Iterator[Answer]:
    """Yield an answer for each file, in order.

    Args:
        trained: The network.
        files: Image files of any size.
        top: The number of classes.
    """
    for start in range(0, len(files), PREDICTED_TOGETHER):
        pixels, errors = {}, {}
        for path in files[start : start + PREDICTED_TOGETHER]:
            try:
                pixels[path] = trained.read_image(path)
            except UserError as error:
                errors[path] = str(error)
        answers = {}
        if pixels:
            found = trained.probabilities(torch.from_numpy(np.stack(list(pixels.values()))))
            # Of equal classes, the first wins.
            best = found.sort(dim=1, descending=True, stable=True)
            names = trained.spec.class_names
            rows = zip(pixels, best.values[:, :top], best.indices[:, :top], strict=True)
            for path, values, labels in rows:
                if values.isnan().any():
                    errors[path] = not_finite(str(path), 1)
                    continue
                pairs = zip(labels.tolist(), values.tolist(), strict=True)
                answers[path] = tuple((names[label], value) for label, value in pairs)
        for path in files[start : start + PREDICTED_TOGETHER]:
            yield Answer(path, answers.get(path, ()), errors.get(path))
