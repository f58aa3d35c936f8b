"""A user's own images, with the class given by folders or by a pattern in the file path.

`data.root` has one of two layouts: train/<class>/… with val/, test/ or both, in any spelling, or
the class folders themselves, which `data.test_fraction` and `data.val_fraction` then split. Without
val/, a part of the training images is used for validation; test/ is never used to choose a
checkpoint. The classes are those of the training set, sorted by name; a validation folder may lack
some. With `data.pattern`, the class is part of each file's path, at any depth, and the fractions
split all files.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from glimpse.command import in_shell
from glimpse.config.places import wrong_place
from glimpse.data.folders import (
    class_folders,
    folders_with_images,
    holds_images,
    holds_runs,
    listing,
    names_of_classes,
    read_classes,
)
from glimpse.data.formats import counted, is_image
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import Files, Source
from glimpse.data.splits import UNLABELLED, split_of
from glimpse.errors import UserError
from glimpse.text import as_utf8, class_name, plural, some

TOO_SHORT = ("tr", "te", "fit")  # for the name of a folder, which may be a class
NUMBERED = r"([^/]+?)[ ._(-]*\d+\)?\.\w+$"  # the class in names such as cat.12.jpg and "great dane (3).png"


class ImageFolder(ImageDataModule):
    """A folder of images of one size, or of any size with `data.presize`.

    Args:
        root: The folder.
        pattern: A regular expression that matches the class in a file's path below `root`, as its
            only group or as the group named `label`; None: folders are classes.
        source: An archive of the folder, for the error message if it is missing.
        **common: Arguments of every dataset.
    """

    version: ClassVar[int] = 3

    def __init__(
        self, *, root: str, pattern: str | None = None, source: str | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        self.own_arguments.pop("source", None)  # it has no effect on the cache
        self.source = source
        self.root = Path(os.path.expanduser(root))
        self.pattern = pattern if pattern is None else _compiled(pattern)
        self.passed_over = Counter[str]()
        self.runs: list[str] = []  # run folders inside the folders of classes

    def source_files(self) -> Iterable[str]:
        """Return all images below the root."""
        found = listing(self.root, without=self._own)
        self.passed_over, self.runs = found.passed_over, found.runs
        return found.names

    @cached_property
    def _own(self) -> frozenset[Path]:
        """The folders in the root that glimpse itself writes: `data_dir` and those of runs."""
        found = {
            folder
            for folder in class_folders(self.root)
            if holds_runs(folder) and not (_split_of(folder) and listing(folder).names)
        }
        if self.data_dir.absolute().parent.resolve() == self.root.resolve():
            # The cache will create it, if it is not there.
            found.add(self.root / self.data_dir.name)
        return frozenset(found)

    @property
    def _folders(self) -> list[Path]:
        """The folders in the root: the classes, or the splits."""
        return class_folders(self.root, without=self._own)

    @property
    def archive_folder(self) -> Path:
        """The parent of the root, because the archive may contain the root as its folder."""
        return self.root.parent

    @property
    def archive_top(self) -> str | None:
        """The root, if the archive contains the folders of the classes or splits without it."""
        return self.root.name or None

    def missing(self) -> str:
        if wrong := wrong_place("data.root", str(self.root), source=self.source):
            return wrong
        found = "; ".join(["no images found", *counted(self.passed_over)])
        return f"data.root={self.root}: {found}; expected {self.root}/<class>/*.jpg"

    def remarks(self) -> list[str]:
        """Report what was skipped, and which folders are classes and splits."""
        remarks = counted(self.passed_over)
        runs = [os.path.relpath(run, self.root) for run in self.runs]
        found = [folder.name for folder in self._own if folder.is_dir()]
        if own := sorted(map(as_utf8, [*found, *runs])):
            remarks.append(f"skipped, because glimpse writes there: {some(own)}")
        if self.pattern is None:
            return [*remarks, *self._remarks_on_layout()]
        splits = [as_utf8(folder.name) for folder in self._folders if _split_of(folder)]
        if len(splits) > 1:
            remarks.append(
                f"data.pattern reads all images below the root, so {some(splits)} are one set"
            )
        return remarks

    def _remarks_on_layout(self) -> Iterator[str]:
        parts = self._parts_by_name()
        classes = class_folders(parts.get("train", self.root), without=self._own)
        for folder in (self.root, *parts.values()):
            if loose := sum(map(is_image, folder.iterdir())):
                yield (
                    f"{plural(loose, 'image')} in {as_utf8(str(folder))} skipped, because not in a "
                    "class folder"
                )
        for split, folder in parts.items():
            if _split_of(folder) != split or folder.parent != self.root:
                yield f"{split} is {as_utf8(str(folder.relative_to(self.root)))}"
        if parts:
            used = {inner for part in parts.values() for inner in (part, *part.parents)}
            others = [as_utf8(folder.name) for folder in self._folders if folder not in used]
            if others:
                yield f"skipped, because not named train, val or test: {some(others)}"
        elif splits := [as_utf8(folder.name) for folder in classes if _split_of(folder)]:
            are = "is a class" if len(splits) == 1 else "are classes"
            yield f"{some(splits)} {are} here; for splits, put the classes into train/"
        if any(map(_is_nested, classes)):
            names = some([as_utf8(folder.name) for folder in classes])
            innermost = "; for the innermost folders, type \"data.pattern='([^/]+)/[^/]+$'\""
            yield (
                f"the classes are the folders {names}, with all images below them"
                f"{innermost * (not parts)}"
            )

    def read(self) -> Source:
        """Return paths and labels of the existing parts."""
        if self.pattern is not None:
            return self._read_names(self.pattern)
        parts = self._parts_by_name()
        remarks: list[str] = []
        train = parts.get("train", self.root)
        classes = class_folders(train, without=self._own)
        self._check_layout(train, classes)
        class_names = names_of_classes(train, without=self._own)
        read = {"train": read_classes(train, class_names, without=self._own)}
        if "test" in parts and _is_unlabelled(parts["test"], class_names):
            remarks.append(UNLABELLED)
            del parts["test"]
        for name in ("val", "test"):
            if name in parts:
                if not class_folders(parts[name]):
                    raise UserError(
                        f"{parts[name]}: no class folders found, expected one for each class as in "
                        f"{train}: move unlabelled images elsewhere"
                    )
                read[name] = read_classes(parts[name], class_names)
        held_out = read.get("val"), read.get("test")
        return Source(class_names, read["train"], *held_out, remarks=tuple(remarks))

    def _parts_by_name(self) -> dict[str, Path]:
        """Return the folders train, val and test; empty if the root contains the class folders."""
        folders = self._folders
        named = _with_evaluation([(s, folder) for folder in folders if (s := _split_of(folder))])
        has_train = any(split == "train" and class_folders(folder) for split, folder in named)
        if not has_train and (in_words := _parts_by_words(folders)):
            return _unwrapped(in_words)
        if len(named) < len(folders) and not has_train:
            return {}  # `train` without subfolders, next to other folders, is the class of trains
        parts: dict[str, Path] = {}
        for split, folder in named:
            if split in parts:
                raise UserError(
                    f"data.root={self.root}: {parts[split].name} and {folder.name} both mean {split}, "
                    "expected one of them: merge them, or move one elsewhere"
                )
            parts[split] = folder
        if parts and "train" not in parts:
            found = ", ".join(folder.name for folder in folders)
            hint = ""
            if len(folders) == 1 and len(class_folders(folders[0])) >= 2:
                hint = f"; to divide {found}, type {in_shell(f'data.root={folders[0]}')}"
            raise UserError(f"data.root={self.root}: expected train/ beside {found}{hint}")
        return _unwrapped(parts)

    def _read_names(self, pattern: re.Pattern[str]) -> Source:
        paths = [Path(name) for name in listing(self.root, without=self._own).names]
        matches = [pattern.search(path.relative_to(self.root).as_posix()) for path in paths]
        group = "label" if "label" in pattern.groupindex else 1
        found = [match[group] if match else None for match in matches]
        without = [path for path, name in zip(paths, found, strict=True) if not name]
        if without:
            raise UserError(
                f"data.pattern={pattern.pattern} finds no class in {len(without):,} of "
                f"{len(paths):,} images below {self.root}, for example "
                f"{without[0].relative_to(self.root)}: change the pattern, or move these images"
            )
        names = [class_name(name) for name in found if name]
        class_names = tuple(sorted(set(names)))
        if len(class_names) < 2:
            raise UserError(
                f"data.pattern={pattern.pattern} finds only one class, {class_names[0]}: "
                "expected two or more; change the pattern"
            )
        label_of = {name: label for label, name in enumerate(class_names)}
        files = Files(paths, np.array([label_of[name] for name in names]))
        return Source(class_names, files)

    def _table_beside(self, images: Path) -> str | None:
        """Return a question if a table next to or above the images may contain the labels."""
        question = "are its labels in a table? type"
        if (images / "metadata.jsonl").is_file():
            return f"{question} {in_shell('data=huggingface', f'data.name={self.root}')}"
        for place in dict.fromkeys((images, self.root, self.root.parent)):
            tables = [
                table
                for table in sorted([*place.glob("*.csv"), *place.glob("*.tsv")])
                if "submission" not in table.name.lower() and _split_in_words(table) != "test"
            ]
            if tables:
                table = min(tables, key=lambda table: _split_in_words(table) != "train")
                inside = [f"data.folder={images.relative_to(place)}"] if images != place else []
                return f"{question} {in_shell('data=csv', f'data.train={table}', *inside)}"
        return None

    def _pattern_or_table(self, images: Path) -> str | None:
        """Return where the labels of images without class folders may be: in names, in a table."""
        found = filter(None, (_typed_pattern(images), self._table_beside(images)))
        return "; ".join(found) or None

    def _check_layout(self, train: Path, classes: Sequence[Path]) -> None:
        divided = [folder for folder in classes if _has_train(folder)]
        flat = _flat_train(classes) if train == self.root else None
        if len(classes) >= 2 and not divided and flat is None:
            return
        if flat is not None:
            remedy = self._pattern_or_table(flat)
            each_folder = in_shell("data.pattern=^([^/]+)/")
            are_classes = f" (if {flat.name} is a class, type {each_folder})"
            raise UserError(
                f"data.root={self.root}: {flat.name} contains images, expected a folder for each class in "
                f"it{are_classes * (None in map(_split_in_words, classes))}; "
                f"{remedy or f'sort the images into {flat}/<class>/'}"
            )
        if len(classes) == 1 and holds_images(classes[0]):
            if self.fewest_classes == 1:
                return
            table = self._table_beside(classes[0])
            raise UserError(
                f"data.root={self.root}: found one class, {classes[0].name}, where two are needed: "
                f"{f'{table}, or ' if table else ''}add a folder of images for each other class beside "
                f"{classes[0]}"
            )
        here = [p.name for p in sorted(train.iterdir())]
        loose = holds_images(train)
        hint = "is it one level too high?"
        if loose:
            hint = f"sort the images into {train}/<class>/"
            if remedy := self._pattern_or_table(train):
                hint = remedy
            elif _are_classes(class_folders(self.root.parent)):
                hint = f"did you mean {in_shell(f'data.root={self.root.parent}')}?"
        elif inside := _splits_in_classes(classes):
            hint = (
                f"{some(inside)} are in the folder of each class, expected them above: move the images to "
                f"{inside[0]}/<class>/, or type {in_shell('data.pattern=^([^/]+)/')} to ignore them"
            )
        elif divided:
            hint = f"did you mean {in_shell(f'data.root={divided[0]}')}?"
        elif len(classes) == 1 and (inner := _first_with_several(classes[0])):
            hint = f"did you mean {in_shell(f'data.root={inner}')}?"
        raise UserError(
            f"data.root={self.root}: expected two or more class folders with images in {train}, "
            f"found {some(here, 3) or 'nothing'}; {hint}"
        )


def _flat_train(folders: Sequence[Path]) -> Path | None:
    """Return the first folder of training images beside other splits, if they contain no classes."""
    flat: dict[str | None, Path] = {}
    for folder in folders:
        if holds_images(folder) and not class_folders(folder):
            flat.setdefault(_split_in_words(folder), folder)
    return flat.get("train") if "val" in flat or "test" in flat else None


def _typed_pattern(folder: Path) -> str | None:
    """Return what to type if the names of the images begin with their classes, such as cat.12.jpg."""
    names = [path.name for path in folder.iterdir() if is_image(path)]
    found = [match[1].lower() for name in names if (match := re.search(NUMBERED, name))]
    if len(found) < len(names) or not 2 <= len(set(found)) <= len(found) / 2:
        return None
    typed = in_shell(f"data.root={folder}", f"data.pattern={NUMBERED}")
    return f"are the classes {some(sorted(set(found)), 3)}? type {typed}"


def _are_classes(folders: Sequence[Path]) -> bool:
    """Whether folders, which contain images, may be classes: two or more, and no splits."""
    inhabited = [folder for folder in folders if holds_images(folder)]
    return len(inhabited) >= 2 and not all(map(_split_in_words, inhabited))


def _splits_in_classes(classes: Sequence[Path]) -> list[str]:
    """Return the names of the splits that each class is divided into; empty if they are not."""
    inside = [[inner.name for inner in class_folders(folder)] for folder in classes]
    if len(inside) < 2 or not inside[0] or any(names != inside[0] for names in inside):
        return []
    return inside[0] if all(split_of(name) for name in inside[0]) else []


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"data.pattern={pattern}: expected a regular expression ({error})"
        ) from error
    if expression.groups != 1 and "label" not in expression.groupindex:
        raise UserError(
            f"data.pattern={pattern}: expected one group in parentheses for the class, or a named "
            "group (?P<label>…)"
        )
    return expression


def _split_of(folder: Path) -> str | None:
    return None if folder.name.lower() in TOO_SHORT else split_of(folder.name)


def _split_in_words(folder: Path) -> str | None:
    """Return the split in a name such as seg_train or val2017; None without one, or with several."""
    words = set(re.findall(r"[^\W\d_]+", folder.name.lower())) - set(TOO_SHORT)
    found = {split for word in words if (split := split_of(word))}
    return found.pop() if len(found) == 1 else None


def _parts_by_words(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the splits that the names of folders contain, if train and another are found.

    A folder without subfolders is skipped, because it might be a class. So might folders that share
    no class, such as `toy train` and `crash test`.
    """
    parts: dict[str, Path] = {}
    for folder in folders:
        split = _split_in_words(folder)
        if split is None or not class_folders(folder):
            continue
        if split in parts:
            return {}
        parts[split] = folder
    classes = {s: set(names_of_classes(folder)) for s, folder in _unwrapped(parts).items()}
    trained = classes.pop("train", set())
    return parts if classes and all(trained & others for others in classes.values()) else {}


def _with_evaluation(named: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Return splits and their folders, with `evaluation` as the test set beside `validation`."""
    splits = [split for split, _ in named]
    if splits.count("val") != 2 or "test" in splits:
        return list(named)
    return [
        ("test" if folder.name.lower().startswith("eval") else split, folder)
        for split, folder in named
    ]


def _is_unlabelled(test: Path, class_names: Sequence[str]) -> bool:
    """Whether a folder has images, but not in folders of classes: test/1.jpg or test/images/1.jpg."""
    inner = class_folders(test)
    names = [class_name(folder.name) for folder in inner]
    if len(inner) == 1 and names[0] not in class_names:
        is_usual = _split_of(inner[0]) == "test" or names[0].lower() in ("images", "unknown")
        return is_usual and not class_folders(inner[0])
    return not inner and holds_images(test)


def _unwrapped(parts: Mapping[str, Path]) -> dict[str, Path]:
    """Return the folders of the classes in each split."""
    is_trained = "train" in parts
    trained = names_of_classes(_without_wrapping(parts["train"])) if is_trained else ()
    return {
        split: _without_wrapping(folder, () if split == "train" else trained)
        for split, folder in parts.items()
    }


def _without_wrapping(folder: Path, trained: Collection[str] = ()) -> Path:
    """Return the folder of the classes, which archives may wrap in another (train/train/cat).

    A folder with the name of a class in `trained` is a class, even if it is the only one.
    """
    inner = class_folders(folder)
    while (
        len(inner) == 1
        and class_name(inner[0].name) not in trained
        and class_folders(inner[0])
        and not holds_images(folder)
    ):
        folder, inner = inner[0], class_folders(inner[0])
    return folder


def _has_train(folder: Path) -> bool:
    return any(_split_of(inner) == "train" for inner in class_folders(folder))


def _first_with_several(folder: Path) -> Path | None:
    """Return the first folder, from this one down, that contains several; None without one."""
    inner = class_folders(folder)
    while len(inner) == 1:
        folder, inner = inner[0], class_folders(inner[0])
    return folder if inner else None


def _is_nested(folder: Path) -> bool:
    """Whether a class folder holds its images in two or more folders below it."""
    return len(list(folders_with_images(folder))) >= 2
