"""MNIST and datasets in its format: 60,000 training and 10,000 test images, 28×28 grey.

Sources: Y. LeCun, C. Cortes, C. Burges, The MNIST database; H. Xiao, K. Rasul, R. Vollgraf,
Fashion-MNIST (2017, MIT licence). The data is four idx files in `<data_dir>/<folder>/raw/` or its
parent, gzipped or not.
"""

import gzip
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from glimpse.data.download import Archive, fetch, one_at_a_time, whole_or_nothing
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Source
from glimpse.errors import UserError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

MOST_PIXELS = 2**31  # in one file; EMNIST, the largest dataset in this format, has 0.6 billion


class MNIST(ImageDataModule):
    """Handwritten digits."""

    folder: ClassVar[str] = "MNIST"
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")
    mirror: ClassVar[str] = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    md5s: ClassVar[Sequence[str]] = (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    )

    @property
    def _raw(self) -> Path:
        return self.data_dir / self.folder / "raw"

    def source_files(self) -> Iterable[Path]:
        """Return the four files, if all of them exist."""
        found = [self._file(name) for name in FILES]
        return [path for path in found if path is not None] if None not in found else []

    def _file(self, name: str) -> Path | None:
        """The path of a file, which some unpackers name with a dot or put into a folder."""
        dotted = name.replace("-idx", ".idx")
        names = (name, f"{name}.gz", dotted, f"{dotted}.gz", f"{name}/{name}")
        candidates = (folder / other for folder in (self._raw, self._raw.parent) for other in names)
        return next((path for path in candidates if path.is_file()), None)

    def missing(self) -> str:
        return f"{self._raw}: expected {FILES[0]}.gz and three more files; put them there"

    def download(self) -> None:
        """Download four files from the mirror, or from the folder or archive at `data.url`."""
        if self.url is not None and Archive(self.url, None).is_packed:
            super().download()
            return
        base = (self.url or self.mirror).rstrip("/")
        # Local files may be repacked, as Debian's are. Gzip has its own checksum.
        local = base.startswith("file://")
        with one_at_a_time(self._raw):
            for name, md5 in zip(FILES, self.md5s, strict=True):
                archive = Archive(f"{base}/{name}.gz", None if local else f"md5:{md5}")
                if self._file(name) is None:
                    fetched = fetch(archive, self._raw)
                    if fetched.parent != self._raw:  # a file:// URL
                        with whole_or_nothing(self._raw, fetched.name) as partial:
                            (partial / fetched.name).write_bytes(fetched.read_bytes())

    def read(self) -> Source:
        """Read (60000, 28, 28, 1) and (10000, 28, 28, 1) uint8."""
        images, labels, test_images, test_labels = (
            read_idx(file, expected_ndim=ndim)
            for file, ndim in zip(self.source_files(), (3, 1, 3, 1), strict=True)
        )
        train = Arrays(images[..., None], labels.astype(np.int64))
        return Source(
            self.class_names, train, Arrays(test_images[..., None], test_labels.astype(np.int64))
        )


class FashionMNIST(MNIST):
    """Articles of clothing."""

    folder: ClassVar[str] = "FashionMNIST"
    class_names: ClassVar[tuple[str, ...]] = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    mirror: ClassVar[str] = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    md5s: ClassVar[Sequence[str]] = (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    )


def read_idx(path: Path, *, expected_ndim: int) -> NDArray[np.uint8]:
    """Read an array in MNIST's idx format: 0 0 8 ndim, ndim big-endian sizes, then bytes.

    Raises:
        UserError: the file is damaged, is not in this format, or has another number of dimensions.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            zero, _, kind, ndim = file.read(4)
            if zero or kind != 8:
                raise ValueError("it is not an idx file of bytes")
            if ndim != expected_ndim:
                raise ValueError(f"it has {ndim} dimensions, expected {expected_ndim}")
            shape = np.frombuffer(file.read(4 * ndim), ">i4", ndim).tolist()
            if not 0 <= math.prod(shape) <= MOST_PIXELS:
                raise ValueError(f"its header states an impossible shape, {shape}")
            content = file.read(math.prod(shape))
            if file.read(1):  # read no further: a few bytes of gzip may unpack to any size
                raise ValueError(f"it contains more than the shape {shape} in its header")
        array = np.frombuffer(content, np.uint8).reshape(shape)
        return array.copy()  # torch warns about read-only arrays
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; delete it to download it again") from error
