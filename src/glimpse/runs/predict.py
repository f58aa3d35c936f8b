"""Predict the classes of image files with a trained network."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glimpse.command import in_shell
from glimpse.config.places import PACKED
from glimpse.data.folders import listing
from glimpse.data.formats import counted
from glimpse.errors import UserError
from glimpse.runs.trained import PREDICTED_TOGETHER, TrainedRun, not_finite
from glimpse.text import plural
from glimpse.threads import num_cores

Decoded = tuple[Path, NDArray[Any] | UserError]  # a file with its pixels, or why it cannot be read


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
            if inside.runs:
                remarks.append(f"{plural(len(inside.runs), 'folder')} of runs skipped")
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
    for batch in _decoded(trained, files):
        pixels = [found for _, found in batch if not isinstance(found, UserError)]
        top_classes = iter(_top_classes(trained, pixels, top) if pixels else ())
        for path, found in batch:
            if isinstance(found, UserError):
                yield Answer(path, error=str(found))
                continue
            classes = next(top_classes)
            if any(math.isnan(value) for _, value in classes):
                yield Answer(path, error=not_finite(str(path), 1))
            else:
                yield Answer(path, classes)


def _top_classes(
    trained: TrainedRun, pixels: Sequence[NDArray[Any]], top: int
) -> Iterator[tuple[tuple[str, float], ...]]:
    """The most likely classes of each (H, W, C) image with their probabilities."""
    found = trained.probabilities(torch.from_numpy(np.stack(pixels)))
    # Of equal classes, the first wins.
    best = found.sort(dim=1, descending=True, stable=True)
    names = trained.spec.class_names
    for values, labels in zip(best.values[:, :top], best.indices[:, :top], strict=True):
        pairs = zip(labels.tolist(), values.tolist(), strict=True)
        yield tuple((names[label], value) for label, value in pairs)


def _decoded(trained: TrainedRun, files: Sequence[Path]) -> Iterator[list[Decoded]]:
    """Yield batches of files with their pixels.

    Threads decode: Pillow releases Python's lock meanwhile. They are at most two batches ahead of
    the network, whatever the number of files.
    """

    def read(path: Path) -> NDArray[Any] | UserError:
        try:
            return trained.read_image(path)
        except UserError as error:
            return error

    pool = ThreadPoolExecutor(_num_threads(trained))
    ahead: deque[Iterator[Decoded]] = deque()
    try:
        for start in range(0, len(files), PREDICTED_TOGETHER):
            batch = files[start : start + PREDICTED_TOGETHER]
            ahead.append(zip(batch, pool.map(read, batch), strict=True))
            if len(ahead) > 2:
                yield list(ahead.popleft())
        yield from map(list, ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _num_threads(trained: TrainedRun) -> int:
    """As many as `data.num_workers` says; by default, one per core."""
    wanted = trained.config.data.get("num_workers")
    return num_cores() if wanted is None else max(1, int(wanted))
