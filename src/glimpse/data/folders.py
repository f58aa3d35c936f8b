"""Images in folders named after their classes, for `image_folder` and other datasets."""

import errno
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glimpse.data.formats import (
    OF_TEXT,
    begins_as_image,
    counted,
    is_hidden,
    is_image,
    readable_endings,
    unreadable_endings,
)
from glimpse.data.spec import Files
from glimpse.errors import UserError
from glimpse.text import class_name, some

RECORD = ".hydra"  # what a run folder contains


@dataclass(frozen=True)
class Listing:
    """The image files below a folder, sorted by path, and what was skipped, counted by ending.

    The pictures of the run folders in it, which `runs` lists, are skipped too.

    The paths are strings because creating a million `Path` objects takes seconds.
    """

    names: list[str]
    passed_over: Counter[str]
    runs: list[str] = field(default_factory=list)


def class_folders(root: Path, *, without: Collection[Path] = ()) -> list[Path]:
    """Return the folders in `root`, sorted by name, without hidden ones and those in `without`."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:  # which tells folders from files without looking at each
        found = sorted(Path(e.path) for e in entries if not is_hidden(e.name) and _is_folder(e))
    return [path for path in found if path not in without]


def names_of_classes(root: Path, *, without: Collection[Path] = ()) -> tuple[str, ...]:
    """Return the names of the classes that have a folder in `root`, sorted by folder."""
    return tuple(class_name(folder.name) for folder in class_folders(root, without=without))


def holds_images(folder: Path) -> bool:
    """Whether a folder contains image files directly."""
    return any(map(is_image, folder.iterdir()))


def is_run(folder: Path | str) -> bool:
    """Whether a folder is that of a run, which contains the folder RECORD."""
    return os.path.isdir(os.path.join(folder, RECORD))


def holds_runs(folder: Path, *, depth: int = 3) -> bool:
    """Whether a folder contains run folders at most `depth` levels below, and no images above them."""
    with suppress(OSError):  # `listing` reports it
        if is_run(folder):
            return True
        if depth and not holds_images(folder):
            return any(holds_runs(inner, depth=depth - 1) for inner in class_folders(folder))
    return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; one that links to itself does not."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def listing(folder: Path, *, without: Collection[Path] = ()) -> Listing:
    """List the image files below `folder`.

    Links are followed; hidden files and folders are skipped, as are folders in `without`.

    Raises:
        UserError: a folder is not readable, or links to itself.
    """
    found = Listing([], Counter())
    try:
        if folder.is_dir():
            _walk(str(folder), found, without)
    except OSError as error:
        where = Path(os.fsdecode(error.filename))
        if error.errno == errno.ELOOP:
            inside = [where, *where.parents][::-1]
            link = next((path for path in inside if path != folder and path.is_symlink()), where)
            raise UserError(
                f"{link} is a symbolic link that leads back to itself or to one of its parents: remove it"
            ) from error
        raise UserError(f"{where}: {error.strerror}") from error
    found.names.sort()
    found.runs.sort()
    return found


def _walk(folder: str, found: Listing, without: Collection[Path]) -> None:
    readable, unreadable = readable_endings(), unreadable_endings()
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            name = entry.name.lower()
            if entry.is_dir():
                if Path(entry.path) in without:
                    continue
                if is_run(entry.path):
                    found.runs.append(entry.path)
                else:
                    _walk(entry.path, found, without)
            elif name.endswith(readable):
                found.names.append(entry.path)
            elif name.endswith(unreadable):
                found.passed_over[os.path.splitext(name)[1]] += 1
            elif "." not in name and entry.is_symlink() and not os.path.exists(entry.path):
                raise UserError(
                    f"{entry.path} is a link to {os.readlink(entry.path)}, which does not exist: restore "
                    "that folder, or remove the link"
                )
            elif not name.endswith(OF_TEXT) and begins_as_image(entry.path):
                found.passed_over[os.path.splitext(name)[1]] += 1


def folders_with_images(folder: Path) -> Iterator[Path]:
    """Yield the folders below `folder` that hold images, without those of runs."""
    for path in class_folders(folder):
        if is_run(path):
            continue
        if holds_images(path):
            yield path
        yield from folders_with_images(path)


def read_classes(
    root: Path, class_names: Sequence[str], *, without: Collection[Path] = ()
) -> Files:
    """Return the images below `root/<class>/`, labelled by the class's index in `class_names`.

    Folders in `without` are skipped.

    Raises:
        UserError: a folder is not named after a class, or the folder of a class has no images.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    paths: list[Path] = []
    labels: list[int] = []
    for folder in class_folders(root, without=without):
        name = class_name(folder.name)
        if name not in label_of:
            raise UserError(
                f"{folder}: {name} is not a class of the training set "
                f"({some(class_names)}): rename the folder or move it elsewhere"
            )
        if is_run(folder):
            raise UserError(
                f"{folder} is the folder of a run, expected that of a class: move it out of {root}"
            )
        inside = listing(folder)
        if not inside.names:
            reasons = "".join(f"; {remark}" for remark in counted(inside.passed_over))
            raise UserError(
                f"{folder}: the class {name} has no images here, expected one or more{reasons}: add "
                f"images, or move the folder out of {root}"
            )
        paths += map(Path, inside.names)
        labels += [label_of[name]] * len(inside.names)
    return Files(paths, np.array(labels, np.int64))
