"""The base of every dataset: files, cache, splits and statistics.

A dataset is a subclass that says where its files are and reads its own format (`source_files`,
`read`, `download`). What becomes of its splits is in batches.py.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision
from numpy.typing import NDArray

from glimpse.data import cache as image_cache
from glimpse.data import splits
from glimpse.data.arguments import described, own_arguments, without_place
from glimpse.data.augment.base import Augmentation
from glimpse.data.batches import Batches, num_cores
from glimpse.data.cache import Stored
from glimpse.data.decode import PixelFormat, decode, probe
from glimpse.data.download import ARCHIVE_ENDINGS, Archive, fetch, one_at_a_time, unpack
from glimpse.data.identity import common_folder, identity, marks
from glimpse.data.loader import Batch, BatchLoader
from glimpse.data.pixel_statistics import fixed_statistics, histogram, statistics
from glimpse.data.spec import COLOURS, Arrays, Files, ImageSpec, Part, Source, check_labels
from glimpse.data.splits import Split
from glimpse.errors import UserError

OF_ONE_TYPE = (HalfPrecision, DoublePrecision)  # weights and images: bf16-true, 16-true, 64-true


class ImageDataModule(pl.LightningDataModule):
    """Any classification dataset, after `prepare_data` and `setup` with an `ImageSpec`.

    Args:
        data_dir: folder of downloads, archives and caches.
        seed: of the order of batches and of augmentation.
        batch_size: images in a batch, on each device.
        val_fraction: part of the training set that validates; 0: the official held-out set does.
        test_fraction: part held out where the dataset has no official held-out set.
        split_seed: draws these parts; not `seed`, so that runs with other seeds see the same parts.
        classes: names of the classes to keep, in the order of their new labels; None: all.
        normalize: "none" scales to [0, 1]; "dataset" also normalises each channel with the training
            set's statistics; "imagenet" with ImageNet's.
        cache: decode once into an array on disk; False: decode as needed, in worker processes.
        on_bad_file: "error" stops at a file that cannot be read; "skip" leaves it out of the cache.
        url: a mirror, a repacked archive or a file:// URL in place of the official archive.
        sha256: of the file that `url` names, where it is not the official one.
        num_workers: processes that decode, shared by the devices of a machine; None: one for each
            core.
        presize: cut and resize images of many sizes to this many pixels square; None: leave them.
        size: side in pixels of what the network sees; None: as stored.
        augment: changes training images; None: nothing does.

    Raises:
        UserError: from `prepare_data` and `setup`, if the data is missing, broken or does not fit.
    """

    archives: ClassVar[Sequence[Archive]] = ()  # what `download` fetches
    embedded: ClassVar[bool] = False  # made or bundled: needs neither download nor cache
    _own_arguments: dict[str, Any]
    version: ClassVar[int] = 1  # raise it when `read` returns something else for the same files

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes a subclass's own arguments, which are part of the key of its cache."""
        self = super().__new__(cls)
        self._own_arguments = own_arguments(cls, ImageDataModule, args, kwargs)
        return self

    def __init__(
        self,
        *,
        data_dir: str,
        seed: int,
        batch_size: int,
        val_fraction: float,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        classes: Sequence[str] | None = None,
        normalize: str = "none",
        cache: bool = True,
        on_bad_file: str = "error",
        url: str | None = None,
        sha256: str | None = None,
        num_workers: int | None = None,
        presize: int | None = None,
        size: int | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__()
        if on_bad_file == "skip" and not cache:
            raise UserError(
                "data.on_bad_file=skip finds bad files while it fills the cache: "
                "leave data.cache=false out"
            )
        self.data_dir = Path(data_dir)
        self.seed = seed
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.classes = classes
        self.normalize = normalize
        self.cache = cache
        self.skip_unreadable = on_bad_file == "skip"
        self.url = url
        self.sha256 = sha256
        self.num_workers = num_cores() if num_workers is None else num_workers
        self.presize = presize
        self.size = size
        self.augment = augment
        self.splits: dict[str, Split] = {}
        self._remarks: list[str] = []  # for people, beside the splits
        self._identity: str | None = None  # of the content, once known

    # What a dataset answers ---------------------------------------------------------------------

    @abstractmethod
    def source_files(self) -> Iterable[Path | str]:
        """The files that the dataset is read from; empty where they are not there yet."""

    @abstractmethod
    def read(self) -> Source:
        """Read the format; called only where the cache does not hold its result yet."""

    def download(self) -> None:
        """Fetch and unpack the archives, or what `data.url` names, unless another process does."""
        archives = self._archives()
        if not archives:
            return
        with one_at_a_time(self.archive_folder):
            if not self._has_files():
                for archive in archives:
                    unpack(fetch(archive, self.archive_folder), self.archive_folder)

    def _archives(self) -> Sequence[Archive]:
        if self.url is None:
            return self.archives
        checksums = [a.checksum for a in self.archives]
        checksum = f"sha256:{self.sha256}" if self.sha256 else checksums[0] if checksums else None
        if checksum is None or not self.url.endswith(ARCHIVE_ENDINGS):
            raise UserError(
                f"data.url={self.url}: expected an archive ({', '.join(ARCHIVE_ENDINGS)}) "
                "with its data.sha256"
            )
        return [Archive(self.url, checksum)]

    @property
    def archive_folder(self) -> Path:
        """Where archives are downloaded and unpacked to."""
        return self.data_dir

    def missing(self) -> str:
        """One line for when the files are not there even after the download."""
        return f"data_dir={self.data_dir}: the dataset's files are not there"

    # From files to splits -----------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download what is not there and fill the cache; safe in several processes at once."""
        if self.splits:
            return
        self.require_files()
        self._load()

    def require_files(self) -> None:
        """Download what is not there."""
        if self.embedded or self._has_files():
            return
        self.download()
        if not self._has_files():
            raise UserError(self.missing())

    def _has_files(self) -> bool:
        return any(True for _ in self.source_files())

    def setup(self, stage: str | None = None) -> None:
        """Draw the splits and state the `spec`; `prepare_data` comes first.

        A trainer calls it again when it takes the data: its batches are then for that trainer.
        """
        if not self.splits:
            self._draw_splits()
        self.batches.train_with(self.trainer)

    def _draw_splits(self) -> None:
        self._load()
        kept = splits.kept_labels(self._all_class_names, self.classes)
        self._relabel = np.full(len(self._all_class_names), -1, np.int64)
        self._relabel[kept] = np.arange(len(kept))
        rows = {n: np.flatnonzero(self._relabel[p.labels] >= 0) for n, p in self._parts.items()}
        self._require_images("the training set", rows["train"])
        drawn = splits.draw(
            self._parts["train"].labels,
            rows,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
        )
        self.splits = drawn.splits
        self._remarks += drawn.remarks
        for name, does in (("val", "validates"), ("test", "tests")):
            if name in self.splits:
                split = self.splits[name]
                self._require_images(f"{split.origin}, which {does},", split.rows)
        mean, std = self._normalisation(drawn.not_held_out)
        self.spec = ImageSpec(
            num_classes=len(kept),
            class_names=tuple(self._all_class_names[i] for i in kept),
            channels=self._format.channels,
            height=self.size or self._format.height,
            width=self.size or self._format.width,
            mean=mean,
            std=std,
        )
        self.batches = Batches(
            self._parts,
            self._relabel,
            self.splits,
            stored=self._format,
            spec=self.spec,
            batch_size=self.batch_size,
            seed=self.seed,
            augment=self.augment,
            num_workers=self.num_workers,
        )

    def _require_images(self, what: str, rows: NDArray[np.int64]) -> None:
        if len(rows):
            return
        kept = (
            f"data.classes=[{','.join(map(str, self.classes))}]" if self.classes else "its classes"
        )
        raise UserError(
            f"{what} has no image of {kept}: expected one or more; type data.classes=[…] with classes "
            "that it has images of"
        )

    def see_as(self, spec: ImageSpec) -> None:
        """From now on size and normalise images as `spec` says, a checkpoint's for one, in place of
        this data's own. Call it after `setup`, for the same classes in the same order.

        Raises:
            UserError: it is of images with another number of channels.
        """
        assert spec.class_names == self.spec.class_names
        if spec.channels != self._format.channels:
            raise UserError(
                f"the images of this data are {COLOURS[self._format.channels]}, expected "
                f"{COLOURS[spec.channels]} ones: type data_dir=<where the data it was trained on lies>"
            )
        self.spec = spec
        self.batches.see_as(spec)

    def _load(self) -> None:
        """Parts and class names, from the cache, from memory, or as lists of files."""
        if hasattr(self, "_parts"):
            return
        self._parts: dict[str, Stored | Files]
        if self.embedded:
            source = self.read()
            self._all_class_names, parts = source.class_names, image_cache.in_memory(source)
            self._parts = dict(parts)
        elif self.cache:
            name = f"{type(self).__name__.lower()}-{self._cache_key()}"
            self._cache_folder = folder = self.data_dir / ".cache" / name
            self._all_class_names, parts = image_cache.load_or_build(
                folder,
                self._checked_read,
                self.pixel_format,
                num_workers=self.num_workers,
                skip_unreadable=self.skip_unreadable,
            )
            left_out = image_cache.unreadable(folder)
            if left_out:
                listed = folder / image_cache.UNREADABLE
                self._remarks.append(f"{len(left_out):,} unreadable files left out ({listed})")
            self._parts = dict(parts)
            self._identity = image_cache.identity(folder)
        else:
            source = self._checked_read()
            self._all_class_names = source.class_names
            self._parts = {name: _stored(part) for name, part in source.parts().items()}
            if isinstance(source.train, Files):
                self._format = self.pixel_format(source)
        first = self._parts["train"]
        if isinstance(first, Stored):
            _, height, width, channels = first.images.shape
            self._format = PixelFormat(height, width, channels, presize=False)
            if self.presize not in (None, height):
                raise UserError(
                    f"data.presize={self.presize}: this dataset holds pixels, not files, and keeps "
                    f"its {width}×{height}: leave data.presize out"
                )

    def _checked_read(self) -> Source:
        source = self.read()
        splits.kept_labels(
            source.class_names, self.classes
        )  # a class that is not there is said before decoding
        for name, part in source.parts().items():
            check_labels(part, len(source.class_names), name)
        return source

    def _cache_key(self) -> str:
        """Of what decides the pixels and labels that the cache holds: files, by their names, sizes and
        times, the class that reads them, and its arguments. The same where the folder has moved."""
        files = [str(path) for path in self.source_files()]
        folder = common_folder(files)
        readers = [
            (cls.__module__, cls.__qualname__, vars(cls).get("version"))
            for cls in type(self).__mro__
            if issubclass(cls, ImageDataModule)
        ]
        place = partial(without_place, folder=folder, data_dir=self.data_dir)
        settings = described((self.presize, self.skip_unreadable, self._own_arguments), place)
        return image_cache.fingerprint(folder, files, readers, settings)

    def pixel_format(self, source: Source) -> PixelFormat:
        """Size and channels of a dataset of files; one that knows them need not look."""
        assert isinstance(source.train, Files)
        return probe(source.train.paths, self.presize, skip_unreadable=self.skip_unreadable)

    def _normalisation(
        self, rows: NDArray[np.int64]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel: of these rows of the training part, or fixed."""
        if self.normalize != "dataset":
            return fixed_statistics(self.normalize, self._format.channels)
        part = self._parts["train"]
        if not isinstance(part, Stored):
            raise UserError(
                "data.normalize=dataset needs the cache that data.cache=false leaves out: "
                "type data.normalize=imagenet"
            )
        if len(rows) == len(part.labels):
            return statistics(part.histogram)
        return statistics(histogram(part.images, rows))

    # What a run asks ----------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """Tells the content of this data, its classes and its splits from other data, wherever and
        whenever its files were written; 16 hexadecimal digits."""
        stored = (*self.stored_size, self._format.channels)
        digest = hashlib.sha256(f"{self._content()}{self.spec.class_names}{stored}".encode())
        for name in sorted(self.splits):
            digest.update(name.encode() + self.splits[name].rows.tobytes())
        return digest.hexdigest()[:16]

    def _content(self) -> str:
        """The identity of all images and labels; the cache knows it, else they are looked at once."""
        if self._identity is None:
            parts = {
                name: Arrays(part.images, part.labels) if isinstance(part, Stored) else part
                for name, part in self._parts.items()
            }
            found = {
                name: marks(part.paths, num_workers=self.num_workers)
                for name, part in parts.items()
                if isinstance(part, Files)
            }
            self._identity = identity(self._all_class_names, parts, found)
        return self._identity

    def part(self, split: str) -> Stored | Files:
        """What a split's images are taken from; `splits[split].rows` says which of them."""
        return self._parts[self.splits[split].part]

    def stored_images(self, split: str, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some images of a split by their numbers in it, as stored: (B, H, W, C) uint8."""
        part, rows = self.part(split), self.splits[split].rows[positions]
        if isinstance(part, Stored):
            return part.images[rows]
        return np.stack([decode(part.paths[row], self._format) for row in rows])

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the images as stored, which `data.size` may change."""
        return self._format.height, self._format.width

    def source_paths(self, part: str) -> Sequence[Path] | None:
        """The file of each row of a part; None where the dataset holds pixels."""
        found = self.read().parts()[part]
        if not isinstance(found, Files):
            return None
        kept = image_cache.kept_rows(self._cache_folder, part) if self.cache else None
        return found.paths if kept is None else [found.paths[row] for row in kept]

    def labels(self, split: str) -> NDArray[np.int64]:
        """The labels (M,) of a split's images, in their order."""
        chosen = self.splits[split]
        labels: NDArray[np.int64] = self._relabel[self._parts[chosen.part].labels[chosen.rows]]
        return labels

    def majority_accuracy(self, split: str) -> float:
        """What always answering with a split's most frequent class scores on it."""
        counts = np.bincount(self.labels(split), minlength=self.spec.num_classes)
        return float(counts.max() / counts.sum())

    def describe(self) -> str:
        """One line on which images train, validate and test."""
        parts = []
        for name in ("train", "val", "test"):
            if name in self.splits:
                split = self.splits[name]
                parts.append(f"{name} {len(split.rows):,} ({split.origin})")
        if "test" not in self.splits:
            parts.append("no test set")
        return ", ".join(parts + self._remarks)

    # Batches ------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader:
        """Every training image once an epoch; `trainer.overfit_batches` repeats the same few."""
        return self.batches.loader("train", training=True, shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        """Every validation image exactly once."""
        return self.batches.loader("val")

    def test_dataloader(self) -> BatchLoader:
        """The images that `batches.score` chose, each exactly once, without augmentation."""
        return self.batches.scored()

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Straight copies, asynchronous from pinned memory."""
        if device.type == "cpu":
            return batch
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment in training, then scale and normalise, on the device."""
        trainer = self.trainer
        training = trainer is not None and trainer.training
        batch = self.batches.to_network(batch, training=training, epoch=self.batches.epoch)
        if trainer is not None and isinstance(trainer.precision_plugin, OF_ONE_TYPE):
            batch = trainer.precision_plugin.convert_input(batch)  # Lightning has seen bytes only
        return batch


def _stored(part: Part) -> Stored | Files:
    if isinstance(part, Arrays):
        return Stored(part.images, part.labels, histogram(part.images))
    return part
