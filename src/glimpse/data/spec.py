"""The interfaces between datasets and networks, and between datasets and their base class.

`ImageSpec` is the only source of the number of classes, the image size and the input statistics;
networks are built from it. `Source` is the return type of a dataset's `read()`: pixels or files,
with labels.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimpse.errors import UserError
from glimpse.text import by

COLOURS = {1: "grey", 3: "RGB"}  # by number of channels


@dataclass(frozen=True)
class ImageSpec:
    """The shape, the classes and the statistics of a dataset's images.

    `mean` and `std` are per channel, for pixels scaled to [0, 1]; 0 and 1 apply no normalisation.
    """

    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain data, for checkpoints that load with `weights_only=True`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageSpec":
        """Invert `as_dict`."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


@dataclass(frozen=True)
class Arrays:
    """Images stored as pixels: (N, H, W, C) uint8, with labels (N,) int64.

    `unreadable` are the rows of the source that were skipped, with their labels and the reasons.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    unreadable: Mapping[int, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """Images stored as files to decode, with labels (N,) int64. Paths may be given as text."""

    paths: Sequence[Path]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if any(isinstance(path, str) for path in self.paths):
            object.__setattr__(self, "paths", [Path(path) for path in self.paths])


Part = Arrays | Files


@dataclass(frozen=True)
class Source:
    """A dataset with its official parts.

    `heldout` is the official held-out set, if there is one, and `test` is a third labelled set, if
    there is one. Labels index `class_names`. `remarks` tell the user what was left out; they are
    stored in the cache.
    """

    class_names: tuple[str, ...]
    train: Part
    heldout: Part | None = None
    test: Part | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def parts(self) -> dict[str, Part]:
        """Return the existing parts by name."""
        named = {"train": self.train, "heldout": self.heldout, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}


def as_size(value: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return (height, width) of `data.presize` or `data.size`; one number is a square."""
    if value is None:
        return None
    height, width = (value, value) if isinstance(value, int) else value
    return height, width


def require_shape(shape: Sequence[int]) -> None:
    """Require `data.shape` to be channels, height and width of grey or RGB images."""
    if len(shape) != 3 or shape[0] not in COLOURS or min(shape) < 1:
        raise UserError(f"data.shape={list(shape)}: expected [C,H,W] with 1 or 3 channels")


def check_source(source: Source, *, fewest_classes: int = 2) -> None:
    """Check everything that `read()` returns.

    Raises:
        UserError: there are too few classes, or something is wrong with images or labels.
    """
    check_form(source, fewest_classes=fewest_classes)
    for name, part in source.parts().items():
        check_labels(part, len(source.class_names), name)


def check_form(source: Source, *, fewest_classes: int = 2) -> None:
    """Check the classes, and the shapes, types and numbers of images and labels.

    Raises:
        UserError: something is wrong. The values of the labels are not looked at.
    """
    if not isinstance(source, Source):
        raise UserError(f"read() returned a {type(source).__name__}, expected a Source")
    if len(source.class_names) < fewest_classes:
        found = f"one class, {source.class_names[0]}," if source.class_names else "no class"
        raise UserError(
            f"found {found} where two are needed: add images of another class, as a folder or as a label"
        )
    if wrong := [name for name in source.class_names if not isinstance(name, str)]:
        raise UserError(
            f"the class name {wrong[0]} is of type {type(wrong[0]).__name__}, expected text: type "
            "tuple(map(str, names))"
        )
    for name, number in Counter(source.class_names).items():
        if number > 1:
            raise UserError(
                f"two classes are called {name}, perhaps with accents in two encodings: rename or merge them"
            )
    for name, part in source.parts().items():
        _check_part(part, name)
    arrays = {n: part.images for n, part in source.parts().items() if isinstance(part, Arrays)}
    for name, images in arrays.items():
        if images.shape[1:] != (first := next(iter(arrays.values())).shape[1:]):
            raise UserError(
                f"the {name} images are {by(images.shape[1:])}, but others are {by(first)}: "
                "give all of them one size"
            )


def _check_part(part: Part, what: str) -> None:
    given: dict[str, object] = {f"the labels of the {what} images": part.labels}
    if isinstance(part, Arrays):
        given[f"the {what} images"] = part.images
    for name, values in given.items():
        if not isinstance(values, np.ndarray):
            raise UserError(f"{name} are a {type(values).__name__}, expected a NumPy array")
    if part.labels.ndim != 1:
        raise UserError(
            f"the labels of the {what} images are {by(part.labels.shape)}, expected N, one "
            "index for each image: type labels.argmax(1) for one-hot labels, or labels.ravel()"
        )
    if part.labels.dtype.kind not in "iu":
        raise UserError(
            f"the labels of the {what} images are of {part.labels.dtype}, expected whole numbers, the "
            "indices of the classes"
        )
    num_images = len(part.paths if isinstance(part, Files) else part.images)
    if len(part.labels) != num_images:
        raise UserError(f"there are {num_images:,} {what} images but {len(part.labels):,} labels")
    if isinstance(part, Files):
        return
    shape, dtype = part.images.shape, part.images.dtype
    if len(shape) != 4 or shape[3] not in COLOURS or dtype != np.uint8:
        raise UserError(
            f"the {what} images are {by(shape)} of {dtype}, expected N×H×W×C of uint8, "
            "with 1 or 3 channels C, and values from 0 to 255: change read()"
        )


def check_labels(part: Part, num_classes: int, what: str) -> None:
    """Check that every label is the index of a class.

    Raises:
        UserError: a label is not; the message gives the first one.
    """
    for row in wrong_labels(part, num_classes):
        where = part.paths[row] if isinstance(part, Files) else f"row {row} of the {what} images"
        raise UserError(
            f"{where} has the label {part.labels[row]}: expected 0 to {num_classes - 1}"
        )


def wrong_labels(part: Part, num_classes: int) -> NDArray[np.int64]:
    """Return the rows whose labels are not the index of a class."""
    return np.flatnonzero((part.labels < 0) | (part.labels >= num_classes))
