"""Images in folders named after their classes: what `image_folder` and others read."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from glimpse.data.spec import Files
from glimpse.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image; what it holds is seen when it is read."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def class_folders(root: Path) -> list[Path]:
    """The folders in `root`, hidden ones left out, by name."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def image_names(folder: Path) -> list[str]:
    """The path of every image file anywhere below `folder`, in order; links are followed, hidden
    folders not. Plain text: a million `Path` take seconds to make.

    Raises:
        UserError: a folder may not be read, or links to itself.
    """
    try:
        return sorted(_walk(str(folder))) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error


def images_in(folder: Path) -> list[Path]:
    """The same, to be read."""
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
    """The images below `root/<class>/`, labelled by the class's position in `class_names`.

    Raises:
        UserError: a folder that is no class, or, where the class is known, one without images.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    paths: list[Path] = []
    labels: list[int] = []
    for folder in class_folders(root):
        if folder.name not in label_of:
            raise UserError(
                f"{folder}: {folder.name} is not a class of the training set "
                f"({', '.join(class_names[:5])}{' …' if len(class_names) > 5 else ''})"
            )
        found = images_in(folder)
        if not found:
            raise UserError(f"{folder}: the class {folder.name} has no images")
        paths += found
        labels += [label_of[folder.name]] * len(found)
    return Files(paths, np.array(labels, np.int64))
