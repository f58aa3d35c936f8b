"""Your own images: a folder for each class, divided into train/val/test or not.

`data.root` holds either train/<class>/… beside val/ (or valid/, validation/) and perhaps test/, or
the class folders themselves, which `data.test_fraction` and `data.val_fraction` then divide. The
training set's classes, by name, are the classes; a validation folder may lack some.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glimpse.data.folders import class_folders, images_in, is_image, read_classes
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Source
from glimpse.errors import UserError

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test",)


class ImageFolder(ImageDataModule):
    """Any folder of images, of one size or cut to `data.presize`.

    Args:
        root: the folder.
        **common: arguments of every dataset.
    """

    def __init__(self, *, root: str, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root)

    def source_files(self) -> Iterable[Path]:
        """Every image below the root."""
        if self.root.is_dir():
            yield from images_in(self.root)

    @property
    def files_root(self) -> Path:
        """The folder itself."""
        return self.root

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
        parts = {
            name: folder
            for name, names in (("train", TRAIN_NAMES), ("val", VAL_NAMES), ("test", TEST_NAMES))
            for folder in class_folders(self.root)
            if folder.name.lower() in names
        }
        train = parts.get("train", self.root)
        class_names = tuple(folder.name for folder in class_folders(train))
        self._check_layout(train, class_names)
        divided = [parts[n] for n in ("val", "test") if "train" in parts and n in parts]
        for folder in divided:
            if not class_folders(folder):
                raise UserError(
                    f"{folder}: expected a folder for each class, as in {train}, found none: "
                    "move unlabelled images elsewhere"
                )
        rest = [read_classes(folder, class_names) for folder in divided]
        return Source(class_names, read_classes(train, class_names), *rest)

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


def _has_train(folder: Path) -> bool:
    return any(inner.name.lower() in TRAIN_NAMES for inner in class_folders(folder))
