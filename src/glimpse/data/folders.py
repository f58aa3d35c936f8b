"""Images in folders named after their classes, for `image_folder` and other datasets."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from glimpse.data.spec import Files
from glimpse.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def is_image(path: Path) -> bool:
    """Return whether a file name has an image extension; the content is checked on decoding."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def class_folders(root: Path) -> list[Path]:
    """Return the folders in `root`, sorted by name, without hidden ones."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def image_names(folder: Path) -> list[str]:
    """Return the paths of all image files below `folder`, sorted.

    Links are followed; hidden folders are skipped. The paths are strings because creating a million
    `Path` objects takes seconds.

    Raises:
        UserError: A folder is not readable, or links to itself.
    """
    try:
        return sorted(_walk(str(folder))) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error


def images_in(folder: Path) -> list[Path]:
    """Return the paths of all image files below `folder` as `Path` objects."""
    return [Path(name) for name in image_names(folder)]


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path)
            elif entry.name.lower().endswith(ENDINGS):
                yield entry.path


def read_classes(root: Path, class_names: Sequence[str]) -> Files:
    """Return the images below `root/<class>/`, labelled by the class's index in `class_names`.

    Raises:
        UserError: A folder is not named after a class, or the folder of a class has no images.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    paths: list[Path] = []
    labels: list[int] = []
    for folder in class_folders(root):
        if folder.name not in label_of:
            raise UserError(
                f"{folder}: {folder.name} is not a class of the training set "
                f"({', '.join(class_names[:5])}{' …' if len(class_names) > 5 else ''}): rename the "
                "folder or move it elsewhere"
            )
        found = images_in(folder)
        if not found:
            raise UserError(
                f"{folder}: the class {folder.name} has no images, expected one or more: add "
                "images or delete the folder"
            )
        paths += found
        labels += [label_of[folder.name]] * len(found)
    return Files(paths, np.array(labels, np.int64))
