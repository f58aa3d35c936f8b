"""What a network must know of a dataset, and what a dataset's file hands to the base module.

`ImageSpec` is the only owner of the class count, the image size and the input statistics; networks
are built from it. `Source` is what `read()` of a dataset returns: pixels or files, with labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimpse.errors import UserError

COLOURS = {1: "grey", 3: "RGB"}  # by number of channels


@dataclass(frozen=True)
class ImageSpec:
    """The shape and the meaning of a dataset's images.

    `mean` and `std` are per channel, of pixels scaled to [0, 1]; 0 and 1 leave the scaling alone.
    """

    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for checkpoints that load with `weights_only=True`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageSpec":
        """The inverse of `as_dict`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


@dataclass(frozen=True)
class Arrays:
    """Images that a format holds as pixels: (N, H, W, C) uint8, with labels (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Files:
    """Images that are files to decode, with labels (N,) int64."""

    paths: Sequence[Path]
    labels: NDArray[np.int64]


Part = Arrays | Files


@dataclass(frozen=True)
class Source:
    """A dataset as its authors divided it.

    `heldout` is the official labelled set beside the training set, where there is one; `test` a
    third labelled set, where there is one. Labels index `class_names`.
    """

    class_names: tuple[str, ...]
    train: Part
    heldout: Part | None = None
    test: Part | None = None

    def parts(self) -> dict[str, Part]:
        """The parts that exist, by name."""
        named = {"train": self.train, "heldout": self.heldout, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}


def check_labels(part: Part, num_classes: int, what: str) -> None:
    """Every image has a label, and every label is the index of a class.

    Raises:
        UserError: giving both numbers, or naming the first label that is not.
    """
    num_images = len(part.paths if isinstance(part, Files) else part.images)
    if len(part.labels) != num_images:
        raise UserError(f"there are {num_images:,} {what} images but {len(part.labels):,} labels")
    wrong = np.flatnonzero((part.labels < 0) | (part.labels >= num_classes))
    if len(wrong):
        row = int(wrong[0])
        where = part.paths[row] if isinstance(part, Files) else f"row {row} of the {what} images"
        raise UserError(
            f"{where} has the label {part.labels[row]}: expected 0 to {num_classes - 1}"
        )
