"""Your own images: a folder for each class, divided into train/val/test or not, or names to read.

`data.root` holds either train/<class>/… beside val/ (or valid/, validation/) and perhaps test/, or
the class folders themselves, which `data.test_fraction` and `data.val_fraction` then divide. The
training set's classes, by name, are the classes; a validation folder may lack some. With
`data.pattern` the class is in each file's path, at any depth, and the fractions divide all files.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from glimpse.data.folders import class_folders, image_names, images_in, is_image, read_classes
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Files, Source
from glimpse.errors import UserError

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test",)


class ImageFolder(ImageDataModule):
    """Any folder of images, of one size or cut to `data.presize`.

    Args:
        root: the folder.
        pattern: a regular expression that finds the class in a file's path below `root`, as its one
            group or the group named `label`; None: folders are classes.
        **common: arguments of every dataset.
    """

    def __init__(self, *, root: str, pattern: str | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root)
        self.pattern = pattern if pattern is None else _compiled(pattern)

    def source_files(self) -> Iterable[str]:
        """Every image below the root."""
        if self.root.is_dir():
            yield from image_names(self.root)

    @property
    def archive_folder(self) -> Path:
        """Beside the root, which should be the archive's folder."""
        return self.root.parent

    def download(self) -> None:
        """Only where `data.url` names an archive; otherwise the folder must be there."""
        if self.url is not None:
            super().download()

    def missing(self) -> str:
        """The root is not there, or there is no image in it."""
        if not self.root.exists():
            return f"data.root={self.root}: there is no such folder"
        return f"data.root={self.root}: no images found; expected {self.root}/<class>/*.jpg"

    def read(self) -> Source:
        """Paths and labels of the parts that are there."""
        if self.pattern is not None:
            return self._read_names(self.pattern)
        parts = self._parts_by_name()
        train = parts.get("train", self.root)
        class_names = tuple(folder.name for folder in class_folders(train))
        self._check_layout(train, class_names)
        divided = [parts[name] for name in ("val", "test") if name in parts]
        for folder in divided:
            if not class_folders(folder):
                raise UserError(
                    f"{folder}: expected a folder for each class, as in {train}, found none: "
                    "move unlabelled images elsewhere"
                )
        rest = [read_classes(folder, class_names) for folder in divided]
        return Source(class_names, read_classes(train, class_names), *rest)

    def _parts_by_name(self) -> dict[str, Path]:
        """The folders train, val and test; empty where the root holds the classes themselves."""
        folders = class_folders(self.root)
        parts = {
            name: folder
            for name, names in (("train", TRAIN_NAMES), ("val", VAL_NAMES), ("test", TEST_NAMES))
            for folder in folders
            if folder.name.lower() in names
        }
        if len(parts) == len(folders):
            if parts and "train" not in parts:
                found = ", ".join(folder.name for folder in folders)
                raise UserError(f"data.root={self.root}: expected train/ beside {found}")
            return parts
        if "train" in parts and class_folders(parts["train"]):
            return parts
        return {}  # a folder `train` without folders, beside others, holds pictures of trains

    def _read_names(self, pattern: re.Pattern[str]) -> Source:
        paths = images_in(self.root)
        matches = [pattern.search(path.relative_to(self.root).as_posix()) for path in paths]
        group = "label" if "label" in pattern.groupindex else 1
        found = [match[group] if match else None for match in matches]
        without = [path for path, name in zip(paths, found, strict=True) if not name]
        if without:
            raise UserError(
                f"data.pattern={pattern.pattern} finds no class in {len(without):,} of "
                f"{len(paths):,} images below {self.root}, such as "
                f"{without[0].relative_to(self.root)}: change it, or move these elsewhere"
            )
        names = [name for name in found if name]
        class_names = tuple(sorted(set(names)))
        if len(class_names) < 2:
            raise UserError(
                f"data.pattern={pattern.pattern} finds one class only, {class_names[0]}: "
                "expected two or more"
            )
        label_of = {name: label for label, name in enumerate(class_names)}
        return Source(class_names, Files(paths, np.array([label_of[name] for name in names])))

    def _check_layout(self, train: Path, class_names: tuple[str, ...]) -> None:
        divided = [f for f in class_folders(train) if _has_train(f)]
        if len(class_names) >= 2 and not divided:
            return
        here = [p.name for p in sorted(train.iterdir())]
        loose = any(is_image(p) for p in train.iterdir())
        hint = f"is data.root={self.root.parent} meant?" if loose else "is it one level too high?"
        if divided:
            hint = f"is data.root={divided[0]} meant?"
        elif len(class_names) == 1 and len(class_folders(train / class_names[0])) >= 2:
            hint = f"is data.root={train / class_names[0]} meant?"
        raise UserError(
            f"data.root={self.root}: expected two or more class folders with images in {train}, "
            f"found {', '.join(here[:3]) or 'nothing'}{' …' if len(here) > 3 else ''}; {hint}"
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"data.pattern={pattern}: {error}") from error
    if expression.groups != 1 and "label" not in expression.groupindex:
        raise UserError(
            f"data.pattern={pattern}: expected one group in brackets for the class, or one that is "
            "named, (?P<label>…)"
        )
    return expression


def _has_train(folder: Path) -> bool:
    return any(inner.name.lower() in TRAIN_NAMES for inner in class_folders(folder))
