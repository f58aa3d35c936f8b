"""What a dataset holds: sizes, classes, statistics, and images that are there twice, grey or odd.

For `glimpse data info`. Images pass once, a batch at a time, and 16 bytes of each are kept, so memory
stays flat. Duplicates are exact: the same decoded pixels. Left out: near duplicates, such as a photo
that was compressed again.
"""

import hashlib
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimpse.data.inspect.headers import FileFacts, file_facts
from glimpse.data.module import ImageDataModule

NUM_EXAMPLES = 5


@dataclass(frozen=True)
class SplitFacts:
    """A split: `class_counts` is how often each class occurs, `num_grey` how many images of a colour
    set have three equal channels, `num_repeated` how many are equal to an earlier one of the split."""

    num_images: int
    origin: str
    class_counts: tuple[int, ...]
    majority_accuracy: float
    num_grey: int
    num_repeated: int


@dataclass(frozen=True)
class Overlap:
    """How many images of the split `second` are in the split `first` as well."""

    first: str
    second: str
    num_images: int


@dataclass(frozen=True)
class Place:
    """Where an image is: its split, its file or its row of a part (`train[7]`), and its class."""

    split: str
    image: str
    class_name: str


@dataclass(frozen=True)
class Facts:
    """All of it.

    Sizes are those that the network sees. `mean` and `std` per channel, of pixels in [0, 1], are those
    of data.normalize=dataset; None where the data is set up with another. `num_contradictions` is how
    many different images occur with more than one label, `duplicates` some groups of equal images,
    those across splits first; of a large group, some images.
    """

    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    splits: dict[str, SplitFacts]
    overlaps: tuple[Overlap, ...]
    num_contradictions: int
    duplicates: tuple[tuple[Place, ...], ...]
    files: FileFacts | None


@dataclass(frozen=True)
class _Look:
    """What one pass over a split leaves: (M,) digests of 16 bytes, and a count."""

    digests: NDArray[np.bytes_]
    num_grey: int


def gather_facts(data: ImageDataModule) -> Facts:
    """Look at every image of every split of a dataset that is set up.

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
    groups.sort(  # those across splits first, of them those with different labels
        key=lambda group: (len(np.unique(split_of[group])) == 1, len(np.unique(labels[group])) == 1)
    )

    def found_at(image: int) -> Place:
        name = names[split_of[image]]
        position = image - bounds[split_of[image]]  # from the end of its split
        split = data.splits[name]
        where = paths[name][position] if name in paths else f"{split.part}[{split.rows[position]}]"
        return Place(name, str(where), spec.class_names[labels[image]])

    has_statistics = data.normalize == "dataset"
    return Facts(
        height=spec.height,
        width=spec.width,
        channels=spec.channels,
        class_names=spec.class_names,
        mean=spec.mean if has_statistics else None,
        std=spec.std if has_statistics else None,
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
    """The files of each split's images; a split that holds pixels is left out."""
    of_parts = {split.part: data.source_paths(split.part) for split in data.splits.values()}
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
    # NumPy drops zeros at the end of what it gives back, but compares all 16 bytes.
    return _Look(np.array(digests, "S16"), num_grey)


def _num_grey(images: NDArray[np.uint8]) -> int:
    """How many of some colour images have equal channels."""
    if images.shape[-1] == 1:
        return 0
    rows = images[:, images.shape[1] // 2]  # one row of pixels tells most images of colour
    maybe = images[(rows == rows[..., :1]).all((1, 2))]
    return int((maybe == maybe[..., :1]).all((1, 2, 3)).sum())


def _groups(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The positions of each number that occurs more than once."""
    repeated = np.flatnonzero(np.bincount(numbers)[numbers] > 1)
    order = repeated[np.argsort(numbers[repeated], kind="stable")]
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    return np.split(order, ends) if len(order) else []
