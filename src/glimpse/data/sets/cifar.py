"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test images, 32×32 RGB.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009),
https://www.cs.toronto.edu/~kriz/cifar.html, the Python archives. Image files in
`<data_dir>/cifar10/{train,test}/<class>/` also work (a JPEG copy has different pixels).
"""

import io
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from glimpse.data.decode import PixelFormat
from glimpse.data.download import Archive
from glimpse.data.folders import class_folders, listing, names_of_classes, read_classes
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Source
from glimpse.errors import UserError
from glimpse.text import by

# What a pickle of dicts, lists, strings and NumPy arrays imports.
ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"),
    ("_codecs", "encode"),
}  # fmt: skip


class CIFAR10(ImageDataModule):
    """Ten classes. The statistics cover all training images, even with a selection of classes."""

    archives: ClassVar[Sequence[Archive]] = (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "md5:c58f30108f718f92721af3b95e74349a",
        ),
    )
    folder: ClassVar[str] = "cifar-10-batches-py"
    image_folder: ClassVar[str] = "cifar10"
    train_files: ClassVar[Sequence[str]] = tuple(f"data_batch_{i}" for i in range(1, 6))
    test_file: ClassVar[str] = "test_batch"
    names_file: ClassVar[str] = "batches.meta"
    names_key: ClassVar[str] = "label_names"
    labels_key: ClassVar[str] = "labels"

    def source_files(self) -> Iterable[Path | str]:
        """Return the pickled batches, or else the image files."""
        folder = self.data_dir / self.folder
        if folder.is_dir():
            yield from (folder / n for n in (*self.train_files, self.test_file, self.names_file))
        else:
            for part in ("train", "test"):
                yield from listing(self.data_dir / self.image_folder / part).names

    def missing(self) -> str:
        return (
            f"data_dir={self.data_dir}: expected {self.folder}/ or "
            f"{self.image_folder}/{{train,test}}/<class>/*.jpg"
        )

    def read(self) -> Source:
        """Read (50000, 32, 32, 3) and (10000, 32, 32, 3) uint8, or list the files."""
        folder = self.data_dir / self.folder
        if folder.is_dir():
            [names] = _unpickle(folder / self.names_file, self.names_key)
            train = self._batches([folder / name for name in self.train_files])
            return Source(tuple(names), train, self._batches([folder / self.test_file]))
        root = self.data_dir / self.image_folder
        class_names = names_of_classes(root / "train")
        for part in ("train", "test"):
            if not class_folders(root / part):
                raise UserError(
                    f"{root / part}: no class folders found; expected a folder of images for each "
                    "class"
                )
        return Source(
            class_names,
            read_classes(root / "train", class_names),
            read_classes(root / "test", class_names),
        )

    def pixel_format(self, source: Source) -> PixelFormat:
        """Return 32×32 RGB, or the size in `presize`."""
        return self.presized(PixelFormat(32, 32, 3))

    def _batches(self, files: Sequence[Path]) -> Arrays:
        batches = [_unpickle(file, "data", self.labels_key) for file in files]
        pixels = np.concatenate([data for data, _ in batches])  # (N, 3072): R, G and B planes
        if pixels.shape[1:] != (3072,) or pixels.dtype != np.uint8:
            shape = by(pixels.shape)
            raise UserError(
                f"{files[0]}: its images are {shape} of {pixels.dtype}, expected N×3072 of uint8, the red, "
                "green and blue planes of each image"
            )
        images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels = np.concatenate([labels for _, labels in batches])
        return Arrays(images, labels.astype(np.int64) if labels.dtype.kind in "iu" else labels)


class CIFAR100(CIFAR10):
    """A hundred classes (the fine labels)."""

    archives: ClassVar[Sequence[Archive]] = (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
        ),
    )
    folder: ClassVar[str] = "cifar-100-python"
    image_folder: ClassVar[str] = "cifar100"
    train_files: ClassVar[Sequence[str]] = ("train",)
    test_file: ClassVar[str] = "test"
    names_file: ClassVar[str] = "meta"
    names_key: ClassVar[str] = "fine_label_names"
    labels_key: ClassVar[str] = "fine_labels"


class _ArraysOnly(pickle.Unpickler):
    """An unpickler for dicts, lists, strings and NumPy arrays, so that a file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # its name before NumPy 2
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a batch file")
        return super().find_class(module, name)


def _unpickle(file: Path, *keys: str) -> list[Any]:
    """Return the values of some keys in a CIFAR batch file, which was written by Python 2.

    Raises:
        UserError: the file is missing or damaged, or has other content.
    """
    try:
        content = _ArraysOnly(io.BytesIO(file.read_bytes()), encoding="latin1").load()
        return [content[key] for key in keys]
    except Exception as error:  # a damaged pickle raises errors of any type
        raise UserError(
            f"cannot read {file}: {type(error).__name__}: {error}; delete its folder to unpack the "
            "archive again"
        ) from error
