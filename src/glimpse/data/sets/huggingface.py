"""Datasets of the Hugging Face Hub, and folders and parquet files in their formats.

The `datasets` library (an extra) downloads and reads them: a name on the Hub, a folder that
`save_to_disk` wrote, a folder of parquet files or of images, or one .parquet file. The names of the
splits decide which of them are the training, validation and test set; a remark lists the other
splits. The classes are those of a ClassLabel column, or the labels that occur. Images are files
inside the dataset, or lists of pixels. They are decoded like all other images, into memory, and
then cached. No code in a dataset is executed, and local files need no network.

Left out: columns of several labels, images given by URL or by path, and datasets that do not fit
into memory.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml
from numpy.typing import NDArray

from glimpse.config.trust import OUTSIDE
from glimpse.data.decode import SAMPLED, Opening, PixelFormat, common_format
from glimpse.data.image_cells import decode_rows, is_encoded, opened_image
from glimpse.data.labels import class_names_of
from glimpse.data.module import ImageDataModule
from glimpse.data.processes import each_chunk
from glimpse.data.saved_folder import DICT, INFO, STATE, broken_file
from glimpse.data.spec import Arrays, Source
from glimpse.data.splits import UNLABELLED, split_of
from glimpse.data.tables.rows import WITHOUT_LABEL
from glimpse.data.tables.table import LABELS
from glimpse.errors import UserError, first_line
from glimpse.text import some

IMAGES = ("image", "images", "img", "picture", "photo", "pixels")  # usual names of columns
SAVED = (DICT, STATE, INFO)  # in a folder that `save_to_disk` wrote


class HuggingFace(ImageDataModule):
    """A dataset with a column of images and a column of labels.

    Args:
        name: A name on the Hub, a folder, or a .parquet file.
        subset: The configuration of a dataset that has several; None: its default.
        image: The column of images; None: the only one of that type, or the only one with a name in
            `IMAGES`.
        label: The column of labels; None: the only ClassLabel column, or the only one with a name in
            `LABELS`.
        train: The split to train on, or several, as a list or joined by +; None: detect it by name.
        val: The split to validate on, likewise.
        test: The split to test on, likewise.
        **common: Arguments of every dataset.
    """

    version: ClassVar[int] = 6

    def __init__(
        self,
        *,
        name: str,
        subset: str | None = None,
        image: str | None = None,
        label: str | None = None,
        train: str | Sequence[str] | None = None,
        val: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.set_name = str(name)
        self.path = Path(os.path.expanduser(self.set_name))
        self.subset = subset
        self.image = image
        self.label = label
        given = {"train": train, "val": val, "test": test}
        self.given = {
            split: names.split("+") if isinstance(names, str) else list(names)
            for split, names in given.items()
            if names
        }
        if self.url is not None:
            raise UserError(
                "data.url is not supported by data=huggingface: type data.name=<folder or .parquet file>"
            )

    @property
    def _downloads(self) -> Path:
        return self.data_dir / "huggingface" / self.set_name.replace("/", "___")

    def source_files(self) -> Iterable[Path]:
        """Return the local files, or those that were downloaded."""
        place = self.path if self.path.exists() else self._downloads
        if place.is_file():
            return [place]
        return sorted(
            path for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"
        )

    def download(self) -> None:
        """Download a dataset from the Hub."""
        if self.path.exists() or self.path.is_absolute() or self.path.suffix == ".parquet":
            return
        self._downloads.mkdir(parents=True, exist_ok=True)
        self._opened()

    def missing(self) -> str:
        return (
            f"data.name={self.set_name}: there is no such file or folder, and no such dataset could be "
            "downloaded"
        )

    def read(self) -> Source:
        """Return pixels (N, H, W, C) uint8 with labels; split names determine the parts."""
        found, remarks = self._chosen(self._opened())
        image, label = self._columns(found["train"])
        known = _classes_of(found["train"], label)
        if "test" in found and _is_unlabelled(found["test"], label):
            remarks.append(UNLABELLED)
            del found["test"]
        texts = {split: self._labels(rows, label, split, known) for split, rows in found.items()}
        names = known or class_names_of(
            texts["train"], lambda row: f"{self.set_name}, train[{row}]"
        )
        index = {name: number for number, name in enumerate(names)}
        wanted = self._format_of(found, image)
        parts: dict[str, Arrays] = {}
        for split, rows in found.items():
            pixels, bad = self._pixels(rows, image, split, wanted)
            labels = self._numbers(texts[split], index, split)
            skipped = {row: (int(labels[row]), reason) for row, reason in bad.items()}
            parts[split] = Arrays(pixels, np.delete(labels, list(bad)), skipped)
        held_out = parts.get("val"), parts.get("test")
        return Source(names, parts["train"], *held_out, remarks=tuple(remarks))

    def _chosen(self, opened: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the rows of the training, validation and test set; remarks on unused splits."""
        import datasets

        taken = {name: split for split, names in self.given.items() for name in names}
        for name, split in taken.items():
            if name not in opened:
                splits = some(list(opened), 20)
                raise UserError(f"data.{split}={name}: expected one of the splits, {splits}")
        names = {split: list(dict.fromkeys(given)) for split, given in self.given.items()}
        if len(taken) < sum(map(len, names.values())):
            raise UserError(
                "data.train, data.val and data.test name the same split: each image belongs to one of them"
            )
        unused = []
        for name in opened:
            meant = split_of(str(name)) or ("train" if len(opened) == 1 else None)
            if meant is not None and meant not in names and name not in taken:
                names[meant] = [name]
            elif name not in taken:
                unused.append(str(name))
        if "train" not in names:
            raise UserError(
                f"data.name={self.set_name}: expected a split named train, found {some(list(opened), 20)}: "
                "type data.train=<one of them>"
            )
        remarks = []
        if unused:
            example = "+".join([*names["train"], unused[0]])
            remarks.append(
                f"not used: {'split' if len(unused) == 1 else 'splits'} {some(unused, 20)} "
                f"(data.train={example} would train on {unused[0]} too, data.test={unused[0]} test on it)"
            )
        joined: dict[str, Any] = {}
        for split, several in names.items():
            try:
                joined[split] = datasets.concatenate_datasets([opened[name] for name in several])
            except Exception as error:  # the library raises errors of many types
                raise UserError(
                    f"data.{split}={'+'.join(several)}: the columns of these splits differ, so they cannot "
                    f"be joined: {first_line(error)}"
                ) from error
        return joined, remarks

    def _opened(self) -> Mapping[str, Any]:
        """Return the rows of each split."""
        try:
            import datasets
        except ImportError as error:
            raise UserError(
                "data=huggingface needs the package datasets: type pip install datasets"
            ) from error
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # its exceptions say the same
        is_saved = self.path.is_dir() and any((self.path / name).exists() for name in SAVED)
        try:
            if is_saved:
                opened = datasets.load_from_disk(str(self.path))
            elif self.path.is_file():
                opened = datasets.load_dataset(
                    "parquet", data_files=str(self.path), **self._place()
                )
            else:
                if self.path.exists():
                    _require_own_files(self.path / "README.md")
                source = str(self.path) if self.path.exists() else self.set_name
                opened = datasets.load_dataset(source, self.subset, **self._place())
        except Exception as error:  # the library and the network raise errors of any type
            if is_saved and (broken := broken_file(self.path)):
                raise UserError(
                    f"{broken}: copy the folder again, or save it again with save_to_disk"
                ) from error
            reason = first_line(error)[:300]
            if reason.startswith("Config name is missing"):  # its second line lists them
                reason = (
                    f"{' '.join(str(error).splitlines()[:2])[:300]}: type data.subset=<one of them>"
                )
            else:
                reason += self._remedy(reason)
            raise UserError(f"data.name={self.set_name} cannot be read: {reason}") from error
        return opened if isinstance(opened, Mapping) else {"train": opened}

    def _remedy(self, reason: str) -> str:
        """What to type if the name is that of a file that is no parquet, or of nothing here."""
        if self.path.is_file():
            if self.path.suffix == ".parquet":
                return "; copy or download the file again"
            return "; save it as a parquet file, or as a table of CSV for data=csv"
        if not self.path.exists() and "Hub" in reason:
            return (
                "; nothing here has this name either: type data.name=<a folder, a parquet file, or the name of a "
                "dataset on the Hub>"
            )
        return ""

    def _place(self) -> dict[str, str]:
        local = self.data_dir / ".cache" / "huggingface"
        return {"cache_dir": str(local if self.path.exists() else self._downloads)}

    def _columns(self, rows: Any) -> tuple[str, str]:
        """Return the columns of images and of labels."""
        from datasets import ClassLabel
        from datasets import Image as ImageColumn

        columns = list(rows.features)

        def chosen(key: str, given: str | None, found: list[str]) -> str:
            if given is not None and given not in columns:
                raise UserError(f"data.{key}={given}: expected one of the columns, {some(columns)}")
            if given is None and len(found) != 1:
                raise UserError(
                    f"data.name={self.set_name}: the columns are {some(columns)}: type data.{key}=<column>"
                )
            return given if given is not None else found[0]

        features = rows.features
        pictures = (
            [n for n in columns if isinstance(features[n], ImageColumn)]
            or [n for n in columns if is_encoded(features[n])]
            or [n for n in columns if n.lower() in IMAGES]
        )
        image = chosen("image", self.image, pictures)
        classes = [n for n in columns if isinstance(features[n], ClassLabel)] or [
            n for n in columns if n.lower() in LABELS
        ]
        return image, chosen("label", self.label, classes)

    def _labels(
        self, rows: Any, label: str, split: str, known: tuple[str, ...] | None
    ) -> list[str]:
        """Return the label of each row as text.

        `known` are the names of the classes if the training rows contain their numbers.
        """
        if label not in rows.features:
            raise UserError(f"{self.set_name}, {split}: there is no column {label}")
        names = _classes_of(rows, label) or known or ()
        texts = []
        for row, value in enumerate(rows[label]):
            if _is_missing(value):
                raise UserError(
                    f"{self.set_name}, {split}[{row}]: the label is missing, expected one class"
                )
            if not isinstance(value, str | int | float):
                raise UserError(
                    f"{self.set_name}, {split}[{row}]: the label is {str(value)[:40]!r}, expected one class"
                )
            is_number = isinstance(value, int) and 0 <= value < len(names)
            texts.append(names[int(value)] if is_number else str(value).strip())
        return texts

    def _numbers(self, texts: list[str], index: Mapping[str, int], split: str) -> NDArray[np.int64]:
        numbers = np.empty(len(texts), np.int64)
        for row, text in enumerate(texts):
            if text not in index:
                raise UserError(
                    f"{self.set_name}, {split}[{row}]: the label {text[:40]!r} is not one of the classes "
                    f"of training, {some(list(index))}"
                )
            numbers[row] = index[text]
        return numbers

    def column(self, name: str, part: str) -> Sequence[str] | None:
        """Return the cells of a column, without those of unreadable images that were skipped."""
        rows = self._chosen(self._opened())[0][{"heldout": "val"}.get(part, part)]
        if name not in rows.features:
            return None
        cells = ["" if _is_missing(value) else str(value) for value in rows[name]]
        return self.without_skipped(cells, part)

    def _pixels(
        self, rows: Any, column: str, split: str, wanted: PixelFormat
    ) -> tuple[NDArray[np.uint8], dict[int, str]]:
        """Return the decoded images (N, H, W, C), and the reason for each row that was skipped."""
        pixels = np.empty((len(rows), *wanted.shape), np.uint8)
        bad: dict[int, str] = {}
        number = 0
        decode = partial(
            decode_rows,
            rows=_undecoded(rows, column),
            column=column,
            name=f"{self.set_name}, {split}",
            wanted=wanted,
            skip_unreadable=self.skip_unreadable,
        )
        for images, skipped in each_chunk(
            decode, range(len(rows)), num_workers=self.num_workers, what=f"decoding {split}"
        ):
            pixels[number : number + len(images)] = images
            number += len(images)
            bad |= skipped
        if not number:
            reason = f": {next(iter(bad.values()))}" if bad else ""
            raise UserError(f"{self.set_name}, {split}: there are no images{reason}")
        return pixels[:number], bad

    def _format_of(self, splits: Mapping[str, Any], column: str) -> PixelFormat:
        found = common_format(
            self._images(splits, column, SAMPLED),
            self._images(splits, column),
            sum(map(len, splits.values())),
            self.presize,
            fit=self.fit,
            skip_unreadable=self.skip_unreadable,
        )
        if found is None:
            raise UserError(f"{self.set_name}: there are no images that can be read")
        return found

    def _images(
        self, splits: Mapping[str, Any], column: str, num: int | None = None
    ) -> Iterator[tuple[str, Opening]]:
        """Yield the name of each image and what opens it; of about `num` images in each split."""
        for split, rows in splits.items():
            step = max(1, len(rows) // num) if num else 1
            places = range(0, len(rows), step)
            for row, cells in zip(places, _undecoded(rows, column).select(places), strict=True):
                what = f"{self.set_name}, {split}[{row}]"
                yield what, opened_image(cells[column], column, what)


def _undecoded(rows: Any, column: str) -> Any:
    """The column of images, whose files are decoded here, as all images are."""
    from datasets import Image as ImageColumn

    rows = rows.select_columns([column])
    if isinstance(rows.features[column], ImageColumn):
        rows = rows.cast_column(column, ImageColumn(decode=False))
    return rows


def _require_own_files(card: Path) -> None:
    """Require the files that a local dataset's card names to be in its folder.

    Raises:
        UserError: the card names a file elsewhere, which the library would read or download.
    """
    if not card.is_file():
        return
    head = re.match(r"---\s*\n(.*?)\n---", card.read_text("utf-8", errors="replace"), re.DOTALL)
    try:
        content = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError:
        return  # the library reports it
    configs = content.get("configs") if isinstance(content, Mapping) else None
    for place in _texts([c.get("data_files") for c in configs or () if isinstance(c, Mapping)]):
        if "::" in place or OUTSIDE.search(place):
            raise UserError(
                f"{card} names the file {place[:200]}, expected files in its own folder: copy it there"
            )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _is_missing(value: object) -> bool:
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or not str(value).strip()


def _is_unlabelled(rows: Any, label: str) -> bool:
    """Whether rows have no labels at all, as those of a secret test set."""
    return label not in rows.features or all(
        _is_missing(value) or str(value).strip() in WITHOUT_LABEL for value in rows[label]
    )


def _classes_of(rows: Any, label: str) -> tuple[str, ...] | None:
    """Return the names of the classes if the column contains their numbers; None for others."""
    from datasets import ClassLabel

    feature = rows.features[label]
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None
