"""torchvision's classification datasets by name: `data=torchvision data.name=Flowers102`.

torchvision (torchvision.datasets) downloads a dataset, verifies it and reads its labels. A dataset
of files provides their paths, which the cache decodes as usual. A dataset that stores or opens its
images itself provides them one by one. Left out: datasets without exactly one class per image
(boxes, captions, attributes, pairs, video), parts without labels, and mirrors (`data.url` is not
supported).
"""

import difflib
import inspect
import os
import socket
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from glimpse.data.archives import only_files_and_folders
from glimpse.data.decode import SAMPLED, PixelFormat, fitted, is_grey
from glimpse.data.download import whole_or_nothing
from glimpse.data.labels import distinct
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Arrays, Files, Part, Source
from glimpse.data.splits import UNLABELLED
from glimpse.errors import UserError, first_line
from glimpse.progress_bar import tracked


def _splits(*names: str) -> tuple[dict[str, Any], ...]:
    return tuple({"split": name} for name in names)


_TRAIN_TEST: tuple[dict[str, Any], ...] = ({"train": True}, {"train": False})
_UNDIVIDED: tuple[dict[str, Any], ...] = ({},)

# Name: files in data_dir, and the arguments that select the training set, the official held-out set
# and a third set, if the dataset has them.
SETS: dict[str, tuple[tuple[str, ...], tuple[dict[str, Any], ...]]] = {
    "CIFAR10": (("cifar-10-batches-py",), _TRAIN_TEST),
    "CIFAR100": (("cifar-100-python",), _TRAIN_TEST),
    "CLEVRClassification": (("clevr",), _splits("train", "val")),  # its test set has no labels
    "Caltech101": (("caltech101",), _UNDIVIDED),
    "Caltech256": (("caltech256",), _UNDIVIDED),
    "Country211": (("country211",), _splits("train", "valid", "test")),
    "DTD": (("dtd",), _splits("train", "val", "test")),
    "EMNIST": (("EMNIST",), _TRAIN_TEST),
    "EuroSAT": (("eurosat",), _UNDIVIDED),
    "FER2013": (("fer2013",), _splits("train", "test")),
    "FGVCAircraft": (("fgvc-aircraft-2013b",), _splits("train", "val", "test")),
    "FashionMNIST": (("FashionMNIST",), _TRAIN_TEST),
    "Flowers102": (("flowers-102",), _splits("train", "val", "test")),
    "Food101": (("food-101",), _splits("train", "test")),
    "GTSRB": (("gtsrb",), _splits("train", "test")),
    "INaturalist": (
        ("2021_train", "2021_valid"),
        ({"version": "2021_train"}, {"version": "2021_valid"}),
    ),
    "Imagenette": (("imagenette2",), _splits("train", "val")),
    "KMNIST": (("KMNIST",), _TRAIN_TEST),
    "MNIST": (("MNIST",), _TRAIN_TEST),
    "Omniglot": (("omniglot-py",), _UNDIVIDED),  # the background set; the other has other classes
    "OxfordIIITPet": (("oxford-iiit-pet",), _splits("trainval", "test")),
    "PCAM": (("pcam",), _splits("train", "val", "test")),
    "Places365": (("data_large_standard", "val_large"), _splits("train-standard", "val")),
    "QMNIST": (("QMNIST",), _TRAIN_TEST),
    "RenderedSST2": (("rendered-sst2",), _splits("train", "val", "test")),
    "SEMEION": (("semeion.data",), _UNDIVIDED),
    "STL10": (("stl10_binary",), _splits("train", "test")),
    "SUN397": (("SUN397",), _UNDIVIDED),
    "SVHN": (("train_32x32.mat", "test_32x32.mat"), _splits("train", "test")),
    "StanfordCars": (("stanford_cars",), _splits("train", "test")),
    "USPS": (("usps.bz2", "usps.t.bz2"), _TRAIN_TEST),
}
# The files in place of these for a value of an option, where several sizes may lie side by side.
OF_SIZES: dict[str, dict[tuple[str, Any], tuple[str, ...]]] = {
    "Imagenette": {
        ("size", "320px"): ("imagenette2-320",),
        ("size", "160px"): ("imagenette2-160",),
    },
    "Places365": {("small", True): ("data_256_standard", "val_256")},
}
INSTEAD = {
    "FakeData": "type data=synthetic to generate images",
    "ImageFolder": "type data=image_folder",
    "ImageNet": "type data=image_folder data.root=<the folder of its train/ and val/>",
    "LFWPeople": "its training and test sets show different people; choose another dataset",
}
OURS = {"root", "download", "loader", "transform", "target_transform", "transforms"}


class TorchvisionSet(ImageDataModule):
    """A dataset in `SETS`, with its own training, validation and test parts if it has them.

    Args:
        name: Name of the class in torchvision.datasets.
        options: Arguments of that class, such as `{split: letters}` for EMNIST, except those that
            select training and test images, which this class sets.
        **common: Arguments of every dataset.

    Raises:
        UserError: the dataset does not exist or does not accept these options.
    """

    def __init__(
        self, *, name: str, options: Mapping[str, Any] | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        if name not in SETS:
            raise UserError(f"data.name={name}: {_why_not(name)}")
        self.set_name = name
        self.options = dict(options or {})
        self.places, self.choices = SETS[name]
        for (option, value), places in OF_SIZES.get(name, {}).items():
            if self.options.get(option) == value:
                self.places = places
        self.taken = inspect.signature(getattr(datasets, name)).parameters
        self._check_options()
        if self.url is not None:
            raise UserError(
                f"data.url={self.url}: not supported, because torchvision downloads {name} from "
                f"its own servers; put a copy, unpacked, at {self._expected()} and remove data.url"
            )

    def _check_options(self) -> None:
        plain = [p.name for p in self.taken.values() if p.kind != p.VAR_KEYWORD]
        free = set(plain) - OURS - set(self.choices[0])
        for key in self.options:
            if key not in free:
                has = f"it accepts {', '.join(sorted(free))}" if free else "it accepts none"
                raise UserError(f"data.options.{key}: {self.set_name} has no such option: {has}")
        for key in sorted(free - set(self.options)):
            if self.taken[key].default is inspect.Parameter.empty:
                known = getattr(getattr(datasets, self.set_name), f"{key}s", ())
                one_of = f", one of {', '.join(known)}" if known else ""
                raise UserError(
                    f"data.name={self.set_name} needs data.options={{{key}: …}}{one_of}"
                )

    def _expected(self) -> str:
        return " and ".join(str(self.data_dir / place) for place in self.places)

    def source_files(self) -> Iterable[Path]:
        """Return all files of the dataset, if all of its files and folders exist."""
        found = [_files(self.data_dir / place) for place in self.places]
        return [path for files in found for path in files] if all(found) else []

    def download(self) -> None:
        """Download with torchvision to a temporary folder, then move the content to data_dir."""
        with whole_or_nothing(self.data_dir, self.set_name) as partial, _careful():
            if self.source_files():  # another process has downloaded it
                return
            print(f"torchvision downloads {self.set_name}", flush=True)
            try:
                for choice in self.choices:
                    self._opened(partial, choice, download=True)
            except Exception as error:  # network, archives and readers raise errors of any type
                raise UserError(
                    f"torchvision cannot download {self.set_name} ({first_line(error)}): "
                    f"put a copy at {self._expected()}"
                ) from error

    def missing(self) -> str:
        return f"{self.set_name} is missing: put {self._expected()} there, in torchvision's layout"

    def _opened(self, root: Path, choice: Mapping[str, Any], *, download: bool = False) -> Any:
        takes_any = any(p.kind == p.VAR_KEYWORD for p in self.taken.values())
        more: dict[str, Any] = {}
        if "download" in self.taken or takes_any:
            more["download"] = download
        if self._is_files:
            more["loader"] = Path  # return the path of a file instead of opening it
        return getattr(datasets, self.set_name)(str(root), **choice, **self.options, **more)

    def _other_reader(self) -> str:
        """Return what to type if another of our datasets may be able to read the same files."""
        other = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist"}.get(self.set_name)
        return f"type data={other}, which also reads packed files, or " if other else ""

    @property
    def _is_files(self) -> bool:
        return "loader" in self.taken

    def read(self) -> Source:
        """Return paths or pixels (N, H, W, C) uint8, with labels."""
        opened = []
        for choice in self.choices:
            try:
                opened.append(self._opened(self.data_dir, choice))
            except Exception as error:  # torchvision's readers raise errors of any type
                raise UserError(
                    f"torchvision cannot read {self.set_name} ({first_line(error)}): "
                    f"{self._expected()} may be incomplete; {self._other_reader()}move it elsewhere to "
                    "download it again"
                ) from error
        parts: list[Part | None]
        if self._is_files:
            parts = [_paths(dataset) for dataset in opened]
        else:
            wanted = self._format_of(opened[0])
            parts = [
                self._pixels(dataset, wanted, choice)
                for dataset, choice in zip(opened, self.choices, strict=True)
            ]
        train, heldout, test = (*parts, None, None)[:3]
        assert train is not None
        remarks = (UNLABELLED,) if None in parts else ()
        names = _class_names(opened[0], [part for part in parts if part is not None])
        return Source(names, train, heldout, test, remarks)

    def _format_of(self, dataset: Any) -> PixelFormat:
        """Determine the format: the size of the first image, and grey if a sample is all grey."""
        step = max(1, len(dataset) // SAMPLED)
        grey = all(is_grey(dataset[i][0]) for i in range(0, len(dataset), step))
        width, height = dataset[0][0].size
        return self.presized(PixelFormat(height, width, 1 if grey else 3))

    def _pixels(
        self, dataset: Any, wanted: PixelFormat, choice: Mapping[str, Any]
    ) -> Arrays | None:
        """Return the images of a part; None if they have no labels, as FER2013's in a challenge."""
        images = np.empty((len(dataset), *wanted.shape), np.uint8)
        labels = np.empty(len(dataset), np.int64)
        part = " ".join(f"{key}={value}" for key, value in choice.items())
        for row in tracked(range(len(dataset)), self.set_name, len(dataset), unit="image"):
            what = f"image {row} of {self.set_name} {part}".rstrip()
            try:
                image, label = dataset[row]
                images[row] = fitted(image, wanted, what)
            except (OSError, ValueError, SyntaxError) as error:
                raise UserError(
                    f"cannot read {what}: {first_line(error)}; move {self._expected()} elsewhere to download it "
                    "again (data.on_bad_file does not apply to these images)"
                ) from error
            if label is None:
                return None
            labels[row] = label
        return Arrays(images, labels)


def _why_not(name: str) -> str:
    if name in INSTEAD:
        return f"not available from torchvision here; {INSTEAD[name]}"
    if name in datasets.__all__:
        return "its images do not have exactly one class; choose from " + ", ".join(SETS)
    by_lower_case = {known.lower(): known for known in SETS}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    hint = f" (did you mean {by_lower_case[near[0]]}?)" if near else ""
    return f"no such dataset{hint}; choose from {', '.join(SETS)}"


def _files(path: Path) -> list[Path]:
    """Return the file, or all files in the folder."""
    if path.is_file():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        found += [Path(folder, name) for name in sorted(names)]
    return found


def _paths(dataset: Any) -> Files:
    """Sort the files by path, because torchvision lists some folders in disk order."""
    items = sorted((dataset[i] for i in range(len(dataset))), key=lambda item: str(item[0]))
    return Files([path for path, _ in items], np.array([int(label) for _, label in items]))


def _class_names(dataset: Any, parts: Sequence[Part]) -> tuple[str, ...]:
    """Return the dataset's own names, the first one if a class has several, or else the numbers."""
    given = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if given is None:
        given = range(1 + max(int(part.labels.max()) for part in parts))
    names = [str(name if not isinstance(name, tuple | list) else name[0]) for name in given]
    return distinct(names, range(len(names)))


@contextmanager
def _careful() -> Iterator[None]:
    """Restrict torchvision's downloads: only files and folders from a tar, and a 30 s timeout."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    before = vars(tarfile.TarFile)["extraction_filter"]
    tarfile.TarFile.extraction_filter = staticmethod(only_files_and_folders)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before
        socket.setdefaulttimeout(timeout)
