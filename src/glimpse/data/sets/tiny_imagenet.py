"""Tiny ImageNet: 200 classes with 500 training and 50 validation images each, 64×64.

Source: Stanford CS231N, http://cs231n.stanford.edu/tiny-imagenet-200.zip (images of ImageNet, for
research). The layout is that of the archive: train/<wnid>/images/*.JPEG, and val/images with labels
in val/val_annotations.txt. Some files are grey and are converted to RGB. A class name is the first
synonym in words.txt, followed by the wnid if two classes share it. Left out: the test images, which
have no labels.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from glimpse.data.decode import PixelFormat
from glimpse.data.download import Archive
from glimpse.data.folders import listing
from glimpse.data.labels import distinct
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Files, Source
from glimpse.errors import UserError


class TinyImageNet(ImageDataModule):
    """The official validation set is the held-out set; there is no third labelled set."""

    archives: ClassVar[Sequence[Archive]] = (
        Archive(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
        ),
    )

    @property
    def _root(self) -> Path:
        return self.data_dir / "tiny-imagenet-200"

    def source_files(self) -> Iterable[Path | str]:
        """Return the lists of classes and labels, and all labelled images."""
        if not self._root.is_dir():
            return
        wnids = self._wnids()  # first: its error describes the folder best
        yield from (self._root / "wnids.txt", self._root / "words.txt")
        yield self._root / "val" / "val_annotations.txt"
        for wnid in wnids:
            yield from self._training_images(wnid)
        yield from listing(self._root / "val" / "images").names

    def missing(self) -> str:
        return f"{self._root} is missing: put the archive's folder tiny-imagenet-200 there"

    def read(self) -> Source:
        """Return paths and labels; label i is line i of wnids.txt, counted from 0."""
        wnids = self._wnids()
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        train = [(Path(name), label_of[w]) for w in wnids for name in self._training_images(w)]
        val = []
        annotations = self._root / "val" / "val_annotations.txt"
        for number, line in enumerate(annotations.read_text().splitlines(), 1):
            name, wnid, *_ = [*line.split("\t"), "", ""]
            if wnid not in label_of:
                raise UserError(
                    f"{annotations}, line {number}: {wnid!r} is not in wnids.txt; delete the "
                    f"folder {self._root} to unpack it again"
                )
            val.append((self._root / "val" / "images" / name, label_of[wnid]))
        return Source(self._class_names(wnids), _files(train), _files(val))

    def pixel_format(self, source: Source) -> PixelFormat:
        """Return 64×64 RGB, also for grey files, or the size in `presize`."""
        return self.presized(PixelFormat(64, 64, 3))

    def _wnids(self) -> list[str]:
        return self._text("wnids.txt").split()

    def _text(self, name: str) -> str:
        try:
            return (self._root / name).read_text()
        except FileNotFoundError as error:
            found = ", ".join(sorted(p.name for p in self._root.iterdir())[:5]) or "nothing"
            raise UserError(
                f"{self._root}: found {found}, expected wnids.txt, words.txt, train/ and val/; "
                "delete the folder to unpack it again"
            ) from error

    def _training_images(self, wnid: str) -> list[str]:
        folder = self._root / "train" / wnid / "images"
        images = listing(folder).names
        if not images:
            raise UserError(
                f"{folder}: the class {wnid} in wnids.txt has no training images; delete the "
                f"folder {self._root} to unpack it again"
            )
        return images

    def _class_names(self, wnids: Sequence[str]) -> tuple[str, ...]:
        lines = (line.partition("\t") for line in self._text("words.txt").splitlines())
        words = {wnid: synonyms for wnid, _, synonyms in lines}
        return distinct([words.get(w, w).split(",")[0].strip() or w for w in wnids], wnids)


def _files(pairs: Sequence[tuple[Path, int]]) -> Files:
    return Files([path for path, _ in pairs], np.array([label for _, label in pairs], np.int64))
