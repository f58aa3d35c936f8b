"""Which classes are kept, and which of their images train, validate and test.

The parts are drawn from `split_seed`, stratified by class. With `val_fraction` above 0, a part of
the training set validates and the official held-out set tests; with 0, that set validates. A third
labelled set tests in either case. A dataset without a held-out set gives up `test_fraction` of its
images.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glimpse.errors import UserError


@dataclass(frozen=True)
class Split:
    """Which images of a part form the training, validation or test set: rows (M,) int64."""

    part: str
    rows: NDArray[np.int64]
    origin: str  # for people: where these images come from


@dataclass(frozen=True)
class Drawn:
    """The splits by name, and what else follows from them.

    `not_held_out` are the images, of all classes, that statistics may be taken of: (M,) rows of the
    training part. `remarks` are for people.
    """

    splits: dict[str, Split]
    not_held_out: NDArray[np.int64]
    remarks: list[str] = field(default_factory=list)


def kept_labels(names: Sequence[str], classes: Sequence[str] | None) -> list[int]:
    """The labels that `data.classes` keeps of a dataset with these class names, in its order.

    Raises:
        UserError: a class is not there, is named twice, or is the only one.
    """
    if classes is None:
        return list(range(len(names)))
    for name in map(str, classes):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names[:5])} …"
            raise UserError(f"data.classes: there is no class {name} in this dataset: {hint}")
    if len(set(map(str, classes))) < max(2, len(classes)):
        raise UserError(f"data.classes={list(classes)}: expected two or more, each once")
    return [list(names).index(str(name)) for name in classes]


def draw(
    labels: NDArray[np.int64],
    kept: Mapping[str, NDArray[np.int64]],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Drawn:
    """Divide a dataset.

    Args:
        labels: (N,) of the training part.
        kept: for each part that there is ("train", "heldout", "test"), the rows of the classes kept.
        val_fraction: of the training images; of all images where a held-out set is drawn too.
        test_fraction: of all images, where there is no held-out part.
        seed: draws both.

    Raises:
        UserError: the fractions leave nothing, or too little for every class.
    """
    train, whole = kept["train"], np.arange(len(labels))
    if "heldout" in kept:
        heldout = Split("heldout", kept["heldout"], "the official held-out set")
    elif test_fraction + val_fraction >= 1:
        raise UserError("data.test_fraction and data.val_fraction leave nothing to train on")
    elif test_fraction > 0:
        train, rows = _stratified(train, labels, test_fraction, "test_fraction", seed)
        heldout = Split("train", rows, f"{test_fraction:.0%} of all images, split_seed {seed}")
        whole = np.setdiff1d(whole, rows)
    else:
        raise UserError("this dataset has no held-out set: type data.test_fraction=0.2")
    third = Split("test", kept["test"], "the official test set") if "test" in kept else None
    if val_fraction == 0:
        splits = {"val": heldout} | ({"test": third} if third else {})
        return Drawn(splits | {"train": _training(train, whole)}, whole)
    is_drawn = heldout.part == "train"
    share = val_fraction / (1 - test_fraction) if is_drawn else val_fraction
    train, rows = _stratified(train, labels, share, "val_fraction", seed)
    of = "all images" if is_drawn else "training"
    val = Split("train", rows, f"{val_fraction:.0%} of {of}, split_seed {seed}")
    remarks = []
    if third and not is_drawn:
        remarks.append(
            f"{len(heldout.rows):,} of the official validation set unused "
            "(data.val_fraction=0 validates with them)"
        )
    splits = {"val": val, "test": third or heldout, "train": _training(train, whole)}
    return Drawn(splits, whole, remarks)


def _training(rows: NDArray[np.int64], whole: NDArray[np.int64]) -> Split:
    return Split("train", rows, "the rest" if len(rows) < len(whole) else "all of it")


def _stratified(
    rows: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, key: str, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows without, and with, a drawn fraction of each class."""
    from sklearn.model_selection import train_test_split  # half a second, only where needed

    size = math.ceil(round(fraction * len(rows), 6))  # 0.1 / 0.7 of 70 is a little over 10
    try:
        kept, drawn = train_test_split(
            rows, test_size=size, stratify=labels[rows], random_state=seed
        )
    except ValueError as error:
        raise UserError(f"data.{key}={fraction:g}: {error}") from error
    return np.sort(kept), np.sort(drawn)
