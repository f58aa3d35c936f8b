"""Compare two trained networks on the same images with McNemar's test."""

import numpy as np

from glimpse.data.module import ImageDataModule
from glimpse.errors import UserError
from glimpse.insight.significance import McNemar, mcnemar
from glimpse.runs.trained import TrainedRun


def common_split(first: TrainedRun, second: TrainedRun) -> str:
    """The split to compare both networks on: "test" if there is one, otherwise "val".

    Raises:
        UserError: the runs do not have the same images in the same splits.
    """
    for trained in (first, second):
        require_own_splits(trained)
    if not _have_the_same_images(first.data, second.data):
        raise UserError(
            f"{first.name} and {second.name} do not have the same images in their splits: "
            "compare runs of the same data, data.classes, fractions and data.split_seed"
        )
    return first.require_split(None, default="test")


def require_own_splits(trained: TrainedRun) -> None:
    """Require the data of a run to be those that it was trained on, in the same splits.

    Raises:
        UserError: the data or the splits have changed.
    """
    if trained.data.fingerprint != trained.fingerprint:
        raise UserError(
            f"the data or the splits of {trained.name} have changed since it was trained, so images that "
            "it was trained on could be among those it is measured on"
        )


def _have_the_same_images(one: ImageDataModule, other: ImageDataModule) -> bool:
    """Whether two datasets have the same images in the same splits, however they are stored."""
    return (
        one.identity == other.identity
        and one.spec.class_names == other.spec.class_names
        and one.splits.keys() == other.splits.keys()
        and all(
            split.part == other.splits[name].part
            and np.array_equal(split.rows, other.splits[name].rows)
            for name, split in one.splits.items()
        )
    )


def agreement(first: TrainedRun, second: TrainedRun, split: str) -> tuple[int, int, McNemar]:
    """The number of images that both got right, the number of images, and McNemar's test."""
    answers = first.predict_split(split), second.predict_split(split)
    both = int((answers[0].correct & answers[1].correct).sum())
    return both, len(answers[0]), mcnemar(answers[0].correct, answers[1].correct)
