"""Facts about a dataset for `glimpse data info`: sizes, classes, statistics, duplicates, grey
images.

Images are read once, one batch at a time, and only 16 bytes of each are kept, so that memory use
stays low. Duplicates are exact: their decoded pixels are identical. Left out: near duplicates, such
as a recompressed photo.
"""

import hashlib
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimpse.data.inspect.headers import FileFacts, file_facts
from glimpse.data.module import ImageDataModule
from glimpse.text import as_utf8

NUM_EXAMPLES = 5


@dataclass(frozen=True)
class SplitFacts:
    """Facts about a split.

    `class_counts` is the number of images of each class, `num_grey` the number of images in a
    colour dataset with three equal channels, and `num_repeated` the number of images that are equal
    to an earlier image of the split.
    """

    num_images: int
    origin: str
    class_counts: tuple[int, ...]
    majority_accuracy: float
    num_grey: int
    num_repeated: int


@dataclass(frozen=True)
class Overlap:
    """The number of images in the split `second` that are also in the split `first`."""

    first: str
    second: str
    num_images: int


@dataclass(frozen=True)
class Place:
    """The location of an image: split, file or row of a part (`train[7]`), and class."""

    split: str
    image: str
    class_name: str


@dataclass(frozen=True)
class Facts:
    """All facts about a dataset.

    Height, width and channels are those of the network's input. `mean` and `std` are per channel,
    for pixels in [0, 1], as data.normalize=dataset uses them; they are None with any other
    normalisation. `num_contradictions` is the number of distinct images that occur with more than
    one label. `duplicates` lists some groups of equal images, those across splits first, and only
    some images of a large group.
    """

    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    remarks: tuple[str, ...]
    splits: dict[str, SplitFacts]
    overlaps: tuple[Overlap, ...]
    num_contradictions: int
    duplicates: tuple[tuple[Place, ...], ...]
    files: FileFacts | None


@dataclass(frozen=True)
class _Look:
    """The result of one pass over a split: (M,) digests of 16 bytes, and the grey count."""

    digests: NDArray[np.bytes_]
    num_grey: int


def gather_facts(data: ImageDataModule) -> Facts:
    """Inspect every image in every split of a dataset after its setup.

    Raises:
        UserError: an image cannot be read.
    """
    spec = data.spec
    names: list[str] = [name for name in ("train", "val", "test") if name in data.splits]
    looks = {name: _look_at(data, name) for name in names}
    bounds = np.cumsum([len(look.digests) for look in looks.values()])
    # Equal images get equal numbers, over all splits.
    _, numbers = np.unique(
        np.concatenate([look.digests for look in looks.values()]), return_inverse=True
    )
    contents = dict(zip(names, np.split(numbers, bounds[:-1]), strict=True))
    splits: dict[str, SplitFacts] = {}
    for name, look in looks.items():
        counts = np.bincount(data.labels(name), minlength=spec.num_classes)
        splits[name] = SplitFacts(
            num_images=len(look.digests),
            origin=data.splits[name].origin,
            class_counts=tuple(counts.tolist()),
            majority_accuracy=data.majority_accuracy(name),
            num_grey=look.num_grey,
            num_repeated=len(look.digests) - len(np.unique(contents[name])),
        )
    paths = _paths(data)
    every_path = [path for split_paths in paths.values() for path in split_paths]
    labels = np.concatenate([data.labels(name) for name in names])
    split_of = np.repeat(np.arange(len(names)), [len(look.digests) for look in looks.values()])
    groups = _groups(numbers)
    groups.sort(  # groups across splits first, and among them those with different labels
        key=lambda group: (len(np.unique(split_of[group])) == 1, len(np.unique(labels[group])) == 1)
    )

    def found_at(image: int) -> Place:
        name = names[split_of[image]]
        position = image - bounds[split_of[image]]  # negative, from the end of its split
        split = data.splits[name]
        where = paths[name][position] if name in paths else f"{split.part}[{split.rows[position]}]"
        return Place(name, as_utf8(where), spec.class_names[labels[image]])

    has_statistics = data.normalize == "dataset"
    return Facts(
        height=spec.height,
        width=spec.width,
        channels=spec.channels,
        class_names=spec.class_names,
        mean=spec.mean if has_statistics else None,
        std=spec.std if has_statistics else None,
        remarks=tuple(data.all_remarks),
        splits=splits,
        overlaps=tuple(
            Overlap(first, second, int(np.isin(contents[second], contents[first]).sum()))
            for first, second in combinations(names, 2)
        ),
        num_contradictions=sum(len(np.unique(labels[group])) > 1 for group in groups),
        duplicates=tuple(
            tuple(map(found_at, group[:NUM_EXAMPLES])) for group in groups[:NUM_EXAMPLES]
        ),
        files=file_facts(every_path, num_workers=data.num_workers) if paths else None,
    )


def _paths(data: ImageDataModule) -> dict[str, list[Path]]:
    """Return the files of each split; a split of pixels is omitted."""
    parts = {split.part for split in data.splits.values()}  # several splits may share one
    of_parts = {part: data.source_paths(part) for part in parts}
    return {
        name: [found[row] for row in split.rows]
        for name, split in data.splits.items()
        if (found := of_parts[split.part]) is not None
    }


def _look_at(data: ImageDataModule, split: str) -> _Look:
    digests, num_grey = [], 0
    for batch in data.batches.loader(split):
        images = batch.images.numpy()  # (B, H, W, C) uint8
        digests += [hashlib.blake2b(image, digest_size=16).digest() for image in images]
        num_grey += _num_grey(images)
    # NumPy strips trailing zeros when it returns an item, but compares all 16 bytes.
    return _Look(np.array(digests, "S16"), num_grey)


def _num_grey(images: NDArray[np.uint8]) -> int:
    """Count the colour images that have equal channels."""
    if images.shape[-1] == 1:
        return 0
    rows = images[:, images.shape[1] // 2]  # one row of pixels suffices to exclude most images
    maybe = images[(rows == rows[..., :1]).all((1, 2))]
    return int((maybe == maybe[..., :1]).all((1, 2, 3)).sum())


def _groups(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the positions of each number that occurs more than once."""
    repeated = np.flatnonzero(np.bincount(numbers)[numbers] > 1)
    order = repeated[np.argsort(numbers[repeated], kind="stable")]
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    return np.split(order, ends) if len(order) else []
