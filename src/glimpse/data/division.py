"""Divide a dataset into training, validation and test sets, and determine its `ImageSpec`.

splits.py draws the sets. This file chooses the classes, checks that no set is empty, computes the
normalisation, and collects remarks for the user.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glimpse.data import splits
from glimpse.data.cache import UNREADABLE, Contents, Stored
from glimpse.data.decode import PixelFormat
from glimpse.data.groups import group_names, group_numbers
from glimpse.data.labels import alike
from glimpse.data.pixel_statistics import fixed_statistics, histogram, statistics
from glimpse.data.spec import COLOURS, ImageSpec
from glimpse.data.splits import Split
from glimpse.errors import UserError
from glimpse.text import plural, some

if TYPE_CHECKING:
    from glimpse.data.module import ImageDataModule


@dataclass(frozen=True)
class Division:
    """A dataset after its division.

    `labels` are those of each part (N,) among the kept classes, and -1 for images of other classes.
    `remarks` are for the user.
    """

    splits: dict[str, Split]
    labels: dict[str, NDArray[np.int64]]
    spec: ImageSpec
    remarks: list[str]


def division_of(data: "ImageDataModule") -> Division:
    """Divide a dataset whose contents have been read.

    Raises:
        UserError: a set would be empty, or the settings do not fit the data.
    """
    contents, names = data.contents, data.contents.class_names
    remarks = list(contents.remarks)
    if contents.folder and contents.num_skipped:
        listed = contents.folder / UNREADABLE
        remarks.append(f"{plural(contents.num_skipped, 'unreadable file')} skipped ({listed})")
    kept = splits.kept_labels(names, data.classes)
    relabel = np.full(len(names), -1, np.int64)
    relabel[kept] = np.arange(len(kept))
    for label in contents.lost:
        if label in kept and contents.folder:
            raise UserError(
                f"no image of the class {names[label]} can be read: replace its files, which "
                f"{contents.folder / UNREADABLE} lists, or omit the class from data.classes"
            )
    labels = {name: relabel[part.labels] for name, part in contents.parts.items()}
    rows = {name: np.flatnonzero(of_part >= 0) for name, of_part in labels.items()}
    _require_images(data, "the training set", rows["train"])
    drawn = splits.draw(
        contents.parts["train"].labels,
        rows,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
        folds=data.folds,
        groups=group_numbers(*_grouping(data, "train")) if data.groups is not None else None,
    )
    remarks += drawn.remarks
    if data.groups is not None:
        remarks += _shared_groups(data, drawn.splits)
    for name in ("val", "test"):
        if name in drawn.splits:
            split = drawn.splits[name]
            what = f"the {splits.IN_WORDS[name]} set ({split.origin})"
            _require_images(data, what, split.rows)
    if len(drawn.only_trained):
        few = [names[label] for label in drawn.only_trained]
        remarks.append(f"classes with too few images to be in every held-out set: {some(few)}")
    trained = np.unique(contents.parts["train"].labels[drawn.splits["train"].rows])
    if len(without := np.setdiff1d(kept, trained)):
        lost = [names[label] for label in without]
        remarks.append(f"no training image of {some(lost)}, which the network cannot learn")
    for one, other in alike([names[label] for label in kept]):
        remarks.append(f"the classes {one} and {other} differ only in spelling")
    mean, std = _normalisation(data, drawn.not_held_out)
    height, width = data.size or contents.format.shape[:2]
    spec = ImageSpec(
        num_classes=len(kept),
        class_names=tuple(names[label] for label in kept),
        channels=contents.format.channels,
        height=height,
        width=width,
        mean=mean,
        std=std,
    )
    return Division(drawn.splits, labels, spec, remarks)


def undivided(contents: Contents, spec: ImageSpec, stored: PixelFormat) -> Division:
    """Make all images the test set of a trained network; `ImageDataModule.score_all` explains it."""
    names, found = contents.class_names, contents.format
    if unknown := [name for name in names if name not in spec.class_names]:
        raise UserError(
            f"{unknown[0]} is not a class of the network ({some(spec.class_names)}): rename it, or move "
            "its images elsewhere"
        )
    if len(contents.parts) > 1:
        raise UserError(
            "these images are divided into splits: type the folder or table of one of them"
        )
    if found.shape != stored.shape:
        raise UserError(
            f"these images are {found.height}×{found.width} {COLOURS[found.channels]}, expected "
            f"{stored.height}×{stored.width} {COLOURS[stored.channels]} as in training"
        )
    relabel = np.array([spec.class_names.index(name) for name in names])
    labels = relabel[contents.parts["train"].labels]
    all_of_them = Split("train", np.arange(len(labels)), "all of them")
    return Division({"test": all_of_them}, {"train": labels}, spec, list(contents.remarks))


def _grouping(
    data: "ImageDataModule", part: str
) -> tuple[str, Sequence[str] | None, Sequence[Path] | None]:
    """What determines the groups of a part: `data.groups`, the column of this name, and the files."""
    assert data.groups is not None
    column = data.column(data.groups, part)
    return data.groups, column, data.source_paths(part) if column is None else None


def _shared_groups(data: "ImageDataModule", divided: Mapping[str, Split]) -> Iterator[str]:
    """Yield a remark for each set of its own part that has groups of the training images."""
    train = divided["train"]
    names = np.array(group_names(*_grouping(data, train.part)))
    for name, split in divided.items():
        if split.part == train.part:
            continue
        try:
            others = np.array(group_names(*_grouping(data, split.part)))
        except UserError:  # it has no such column, or other file names
            continue
        shared = np.intersect1d(names[train.rows], others[split.rows])
        if len(shared):
            yield (
                f"{plural(len(shared), 'group')} of data.groups={data.groups} in the training set and in "
                f"the {splits.IN_WORDS[name]} set ({split.origin}), whose score is therefore too good: "
                f"{some(shared.tolist())}"
            )


def _require_images(data: "ImageDataModule", what: str, rows: NDArray[np.int64]) -> None:
    if len(rows):
        return
    kept = f"data.classes=[{','.join(map(str, data.classes))}]" if data.classes else "its classes"
    raise UserError(
        f"{what} has no image of {kept}: expected one or more; type data.classes=[…] with "
        "classes that have images in it"
    )


def _normalisation(
    data: "ImageDataModule", rows: NDArray[np.int64]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel: fixed, or of these training rows."""
    if data.normalize != "dataset":
        return fixed_statistics(data.normalize, data.contents.format.channels)
    part = data.contents.parts["train"]
    if not isinstance(part, Stored):
        raise UserError(
            "data.normalize=dataset requires the cache, but data.cache=false disables it: "
            "type data.normalize=imagenet"
        )
    others = np.setdiff1d(np.arange(len(part.labels)), rows)
    if len(others) < len(rows):  # count the smaller part
        return statistics(part.histogram - histogram(part.images, others))
    return statistics(histogram(part.images, rows))
