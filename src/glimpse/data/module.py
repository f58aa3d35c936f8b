"""The base class of all datasets: its interface to subclasses and to the rest of a run.

A dataset is a subclass that locates its files and reads its own format (`source_files`, `read`,
`download`). reading.py takes its contents from the cache, division.py divides them into splits, and
batches.py turns the splits into batches.
"""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision
from lightning.pytorch.trainer.states import RunningStage
from numpy.typing import NDArray

from glimpse.data.archives import shown
from glimpse.data.arguments import own_arguments, readers
from glimpse.data.augment.base import Augmentation
from glimpse.data.batches import Batches
from glimpse.data.cache import Contents, Stored, kept_rows, verify, without_cache
from glimpse.data.decode import PixelFormat, decode, probe
from glimpse.data.division import Division, division_of, undivided
from glimpse.data.download import ARCHIVE_ENDINGS, Archive, fetch, one_at_a_time, unpack
from glimpse.data.loader import Batch, BatchLoader
from glimpse.data.reading import checked_source, contents_of, identity_of
from glimpse.data.spec import COLOURS, Files, ImageSpec, Source, as_size
from glimpse.data.splits import Folds, Split
from glimpse.data.transfer import sent
from glimpse.errors import UserError
from glimpse.steps_ahead import StepsAhead
from glimpse.text import by, class_name
from glimpse.threads import num_cores

OF_ONE_TYPE = (HalfPrecision, DoublePrecision)  # convert images too: bf16-true, 16-true, 64-true
T = TypeVar("T")

UNBALANCED = 3  # above this ratio of two classes' images, accuracy hides the rarer one


class ImageDataModule(pl.LightningDataModule):
    """A classification dataset. After `prepare_data` and `setup`, it has an `ImageSpec`.

    Args:
        data_dir: Folder of downloads, archives and caches.
        seed: Seed for the order of batches and for the augmentation.
        batch_size: Images per batch, on each device.
        global_batch_size: Images per batch, over all devices together; a multiple of the number of
            devices. Replaces `batch_size`.
        val_fraction: Fraction of the training set used for validation; with 0, the official
            held-out set is used.
        test_fraction: Fraction held out if the dataset has no official held-out set.
        split_seed: Seed for drawing these fractions. It is separate from `seed`, so that runs with
            different seeds use the same splits.
        classes: Names of the classes to keep, in the order of their new labels; None: all.
        normalize: "none" scales to [0, 1]; "dataset" also normalises each channel with the training
            set's statistics, and "imagenet" with ImageNet's.
        cache: Whether to decode once into an array on disk; False: decode on demand, in worker
            processes.
        on_bad_file: "error" stops at a file that cannot be read; "skip" omits it from the cache.
        url: A mirror, a repacked archive or a file:// URL to use instead of the official archive.
        sha256: Checksum of the file that `url` names, if it is not the official one.
        num_workers: Decoding processes, shared by the devices of a machine; None: one per core.
        presize: Height and width in pixels to which image files are fitted before they are stored,
            or one number for a square; None: keep their size.
        fit: How `presize` fits an image of another shape: "crop" keeps its middle, "pad" adds black
            borders, "squash" distorts it.
        size: Height and width of the network's input, or one number for a square; None: as stored.
        augment: Augmentation of training images, or None.
        sampling: How often the images of each class are drawn in training: "shuffle" (every image
            once per epoch), "balanced" (every class equally often), or "sqrt" (between the two).
        folds: The number of folds of the training set; None: validate as `val_fraction` states.
        fold: The fold to validate on, counted from 0.
        groups: Images that stay together in random splits: a column of the table, or a regular
            expression for file paths; None: every image by itself.

    Raises:
        UserError: from `prepare_data` and `setup`, if the data is missing or damaged, or does not
            fit these settings.
    """

    archives: ClassVar[Sequence[Archive]] = ()  # the files that `download` fetches
    embedded: ClassVar[bool] = False  # generated or bundled: needs neither download nor cache
    own_arguments: dict[str, Any]
    readers: Sequence[tuple[object, ...]]
    version: ClassVar[int] = 1  # increase it when `read` changes its result for the same files

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record a subclass's own arguments and its classes, which are part of its cache key."""
        self = super().__new__(cls)
        self.own_arguments = own_arguments(cls, ImageDataModule, args, kwargs)
        self.readers = readers(cls, ImageDataModule)
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
        presize: int | Sequence[int] | None = None,
        fit: str = "crop",
        size: int | Sequence[int] | None = None,
        global_batch_size: int | None = None,
        augment: Augmentation | None = None,
        sampling: str = "shuffle",
        folds: int | None = None,
        fold: int | None = None,
        groups: str | int | None = None,
    ) -> None:
        super().__init__()
        if on_bad_file == "skip" and not cache:
            raise UserError(
                "data.on_bad_file=skip requires the cache, but data.cache=false disables it: "
                "type data.cache=true"
            )
        self.data_dir = Path(os.path.expanduser(data_dir))
        self.seed = seed
        self.batch_size = batch_size
        self.global_batch_size = global_batch_size
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
        self.num_decoders = num_workers
        self.presize = as_size(presize)
        self.fit = fit
        self.size = as_size(size)
        self.augment = augment
        self.sampling = sampling
        self.folds = None if folds is None else Folds(folds, fold or 0)
        self.groups = None if groups is None else class_name(groups)  # as a table's header is read
        self.fewest_classes = 2
        self.splits: dict[str, Split] = {}

    def __str__(self) -> str:
        """The class, and the splits once they are drawn; Lightning's would load batches."""
        return f"{type(self).__name__}({self.describe() if self.splits else 'not set up'})"

    # Interface of a dataset ---------------------------------------------------------------------

    @abstractmethod
    def source_files(self) -> Iterable[Path | str]:
        """Return the files from which the dataset is read; empty if they do not exist yet.

        An embedded dataset does not need this method.
        """

    @abstractmethod
    def read(self) -> Source:
        """Read the dataset; called only if the result is not in the cache."""

    def download(self) -> None:
        """Download and unpack the archives or the file at `data.url`, once across processes."""
        archives = self._archives()
        if not archives:
            return
        with one_at_a_time(self.archive_folder):
            if self.is_here():
                return
            unpacked: list[str] = []
            for archive in archives:
                path = fetch(archive, self.archive_folder)
                unpacked += unpack(
                    path, self.archive_folder, top=self.archive_top, remedy=archive.remedy
                )
            if self.url is not None and not self.is_here():
                found = ", ".join(map(shown, unpacked[:5])) + (", …" if len(unpacked) > 5 else "")
                raise UserError(
                    f"{self.missing()}; the archive has {found or 'nothing'} at its top level"
                )

    def _archives(self) -> Sequence[Archive]:
        if self.url is None:
            return self.archives
        checksums = [a.checksum for a in self.archives]
        checksum = f"sha256:{self.sha256}" if self.sha256 else checksums[0] if checksums else None
        archive = Archive(self.url, checksum)
        if not archive.is_packed:
            raise UserError(
                f"data.url={self.url}: expected an archive ({', '.join(ARCHIVE_ENDINGS)}) "
                "with its data.sha256"
            )
        if checksum is None:
            raise UserError(
                f"data.url={self.url}: expected the checksum of the archive too: type data.sha256=<the output of "
                "sha256sum>"
            )
        return [archive]

    @property
    def archive_folder(self) -> Path:
        """The folder for downloaded and unpacked archives."""
        return self.data_dir

    @property
    def archive_top(self) -> str | None:
        """The folder in `archive_folder` for the content of an archive that lacks this folder."""
        return None

    def missing(self) -> str:
        """Return the error message for files that are missing even after the download."""
        return f"data_dir={self.data_dir}: the dataset's files are missing; put them there"

    def remarks(self) -> list[str]:
        """Return remarks on the files for a run to print, for example on skipped files."""
        return []

    def pixel_format(self, source: Source) -> PixelFormat:
        """Determine the format of a dataset of files; a subclass may return a known one."""
        paths = [
            p for part in source.parts().values() if isinstance(part, Files) for p in part.paths
        ]
        return probe(paths, self.presize, fit=self.fit, skip_unreadable=self.skip_unreadable)

    def presized(self, own: PixelFormat) -> PixelFormat:
        """Return a known format, or the one to which `presize` changes it."""
        if self.presize is None:
            return own
        height, width = self.presize
        return PixelFormat(height, width, own.channels, self.fit)

    # From files to splits -----------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download missing files and fill the cache; safe in several processes at once."""
        if self.splits:
            return
        self.require_files()
        _ = self.contents

    def require_files(self) -> None:
        """Download missing files."""
        if self.is_here():
            return
        self.download()
        if not self.is_here():
            raise UserError(self.missing())

    def is_here(self) -> bool:
        """Whether the dataset can be read without a download."""
        if self.embedded:
            return True
        files = self.source_files()
        if files is None:
            raise UserError(
                f"{type(self).__name__}.source_files() returns None, expected the files that the dataset is "
                "read from: return their paths, or set embedded = True in the class if there are none"
            )
        return any(True for _ in files)

    @cached_property
    def contents(self) -> Contents:
        """The contents of the dataset, read once."""
        return contents_of(self)

    def setup(self, stage: str | None = None) -> None:
        """Draw the splits and set `spec`. Call `prepare_data` first.

        A trainer calls this method again; the batches then follow that trainer.
        """
        if not self.splits:
            self._take(division_of(self))
        self.batches.train_with(self.trainer)

    def score_all(self, spec: ImageSpec, stored: PixelFormat) -> None:
        """Make all images the test set for a trained network; call this in place of `setup`.

        Args:
            spec: The spec of the network. The images may lack some of its classes.
            stored: The format in which the network's own images were stored.

        Raises:
            UserError: a class is not among the network's, the images are divided into splits, or
                pixels of a table have another size.
        """
        self.fewest_classes = 1
        self.require_files()
        self.contents = without_cache(partial(checked_source, self), lambda source: stored)
        self._take(undivided(self.contents, spec, stored))

    def _take(self, division: Division) -> None:
        self._division = division
        self.splits, self.spec = division.splits, division.spec
        self.batches = Batches(self, division)

    def see_as(self, spec: ImageSpec) -> None:
        """From now on, resize and normalise images by `spec`, for example that of a checkpoint.

        Call this method after `setup`. The spec must have the same classes in the same order.

        Raises:
            UserError: the spec has another number of channels.
        """
        assert spec.class_names == self.spec.class_names
        if spec.channels != self.contents.format.channels:
            raise UserError(
                f"the images of this dataset are {COLOURS[self.contents.format.channels]}, expected "
                f"{COLOURS[spec.channels]}: type data_dir=<the folder of the training data>"
            )
        self.spec = spec
        self.batches.see_as(spec)

    # Facts for a run ----------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the content, the classes and the splits of this
        dataset.

        They do not depend on the location or the modification times of the files.
        """
        stored: tuple[object, ...] = self.contents.format.shape
        if self.contents.format.fit not in (None, "crop"):  # older runs have no fit
            stored += (self.contents.format.fit,)
        digest = hashlib.sha256(f"{self.identity}{self.spec.class_names}{stored}".encode())
        for name in sorted(self.splits):
            digest.update(name.encode() + self.splits[name].rows.tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def identity(self) -> str:
        """64 hexadecimal digits that identify all images and labels, however they are split.

        Without a cache, both ends of every file are read.
        """
        return identity_of(self.contents, num_workers=self.num_workers)

    def take_identity(self, known: str) -> None:
        """Take the identity that another process has found."""
        self.identity = known

    def part(self, split: str) -> Stored | Files:
        """Return the part that contains a split's images; `splits[split].rows` are their rows."""
        return self.contents.parts[self.splits[split].part]

    def stored_images(self, split: str, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return stored images of a split by their positions in it: (B, H, W, C) uint8."""
        part, rows = self.part(split), self.splits[split].rows[positions]
        if isinstance(part, Stored):
            return part.images[rows]
        return np.stack([decode(part.paths[row], self.contents.format) for row in rows])

    def verify_cache(self) -> None:
        """Read the whole cache, if there is one, and compare its checksums.

        Raises:
            UserError: the cache is damaged.
        """
        if folder := self.contents.folder:
            verify(folder)

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the stored images, before `data.size` resizes them."""
        return self.contents.format.shape[:2]

    def source_paths(self, part: str) -> Sequence[Path] | None:
        """Return the file of each row of a part; None if the dataset contains pixels."""
        if not self.contents.has_files:  # so that pixels are not decoded again for their names
            return None
        found = self.read().parts()[part]
        if not isinstance(found, Files):
            return None
        return self.without_skipped(found.paths, part)

    def without_skipped(self, rows: Sequence[T], part: str) -> Sequence[T]:
        """Return what belongs to each row of a part, without the unreadable images skipped there."""
        folder = self.contents.folder
        kept = kept_rows(folder, part) if folder else None
        return rows if kept is None else [rows[row] for row in kept]

    def column(self, name: str, part: str) -> Sequence[str] | None:
        """Return a table's cells for each row of a part; None if the dataset has no such column."""
        return None

    def labels(self, split: str) -> NDArray[np.int64]:
        """Return the labels (M,) of a split's images, in order."""
        chosen = self.splits[split]
        return self._division.labels[chosen.part][chosen.rows]

    def majority_accuracy(self, split: str) -> float:
        """Return the accuracy of the majority-class baseline on a split."""
        counts = np.bincount(self.labels(split), minlength=self.spec.num_classes)
        return float(counts.max() / counts.sum())

    @property
    def is_unbalanced(self) -> bool:
        """Whether a class has more than three times as many images as another in the same split."""
        counts = (np.bincount(self.labels(split)) for split in self.splits)
        return any(found.max() > UNBALANCED * found[found > 0].min() for found in counts)

    def describe(self) -> str:
        """Describe the training, validation and test sets in one line."""
        parts = [
            f"{name} {len(self.splits[name].rows):,} ({self.splits[name].origin})"
            for name in ("train", "val", "test")
            if name in self.splits
        ]
        if "test" not in self.splits:
            parts.append("no test set")
        return ", ".join(parts + self.all_remarks)

    @property
    def all_remarks(self) -> list[str]:
        """What a user should know of the splits and the dataset."""
        enlarged = []
        if self.presize and self.size and min(np.subtract(self.size, self.presize)) > 0:
            stored, shown = by(self.presize[::-1]), by(self.size[::-1])
            enlarged.append(f"stored at {stored} pixels, and enlarged to {shown} by data.size")
        return self._division.remarks + self.remarks() + enlarged

    # Batches ------------------------------------------------------------------------------------

    def train_dataloader(self) -> BatchLoader | StepsAhead:
        """Load every training image once per epoch, or a few with `trainer.overfit_batches`."""
        loader = self.batches.loader("train", training=True)
        return loader if self.trainer is None else StepsAhead(loader, self.trainer)

    def val_dataloader(self) -> BatchLoader:
        """Load every validation image exactly once."""
        return self.batches.loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Load the images that `batches.score` chose, each exactly once, without augmentation."""
        return self.batches.scored()

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Copy the batch to the device, asynchronously from pinned memory."""
        if device.type == "cpu":
            return batch
        images, labels, indices = (sent(tensor, device) for tensor in batch[:3])
        return batch._replace(images=images, labels=labels, indices=indices)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment in training, then scale and normalise on the device."""
        trainer = self.trainer
        # `trainer.training` gives the same value, but compares two strings letter by letter.
        training = trainer is not None and trainer.state.stage is RunningStage.TRAINING
        batch = self.batches.to_network(batch, training=training, epoch=self.batches.epoch)
        if training:
            batch = self.batches.chosen(batch)
        if trainer is not None and isinstance(trainer.precision_plugin, OF_ONE_TYPE):
            batch = trainer.precision_plugin.convert_input(batch)  # Lightning has skipped uint8
        return batch


def data_of(trainer: pl.Trainer) -> ImageDataModule:
    """The data that a trainer fits or tests on."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageDataModule)
    return data
