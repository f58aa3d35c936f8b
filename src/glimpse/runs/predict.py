"""Predict the classes of image files with a trained network."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from glimpse.data.folders import listing
from glimpse.data.formats import counted
from glimpse.errors import UserError
from glimpse.runs.trained import TrainedRun, not_finite

BATCH_SIZE = 64


@dataclass(frozen=True)
class Answer:
    """The most likely classes of an image with their probabilities, or why there is no answer."""

    path: Path
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def image_files(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The given files, which may be missing, and all image files in the given folders.

    Returns:
        The files, and remarks on those in the folders that were skipped.

    Raises:
        UserError: a folder contains no image.
    """
    found: list[Path] = []
    passed_over = Counter[str]()
    for path in paths:
        if path.is_dir():
            inside = listing(path)
            passed_over += inside.passed_over
            if not inside.names:
                remarks = "; ".join(
                    ["there is no image file in this folder", *counted(passed_over)]
                )
                raise UserError(f"{path}: {remarks}")
            found += map(Path, inside.names)
        else:
            found.append(path)
    return found, counted(passed_over)


def predict_files(trained: TrainedRun, files: Sequence[Path], *, top: int) -> Iterator[Answer]:
    """Yield an answer for each file, in order.

    Args:
        trained: The network.
        files: Image files of any size.
        top: The number of classes.
    """
    for start in range(0, len(files), BATCH_SIZE):
        pixels, errors = {}, {}
        for path in files[start : start + BATCH_SIZE]:
            try:
                pixels[path] = trained.read_image(path)
            except UserError as error:
                errors[path] = str(error)
        answers = {}
        if pixels:
            found = trained.probabilities(torch.from_numpy(np.stack(list(pixels.values()))))
            best = found.topk(min(top, trained.spec.num_classes), 1)
            names = trained.spec.class_names
            for path, values, labels in zip(pixels, best.values, best.indices, strict=True):
                if values.isnan().any():
                    errors[path] = not_finite(str(path), 1)
                    continue
                pairs = zip(labels.tolist(), values.tolist(), strict=True)
                answers[path] = tuple((names[label], value) for label, value in pairs)
        for path in files[start : start + BATCH_SIZE]:
            yield Answer(path, answers.get(path, ()), errors.get(path))
