"""What a dataset's constructor is given is part of its cache's key, without the dataset doing anything."""

import copy
import functools
import importlib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from omegaconf import OmegaConf

from glimpse.data.arguments import described, readers
from glimpse.data.module import ImageDataModule
from glimpse.data.reading import cache_key
from glimpse.data.sets.csv_table import CsvTable
from glimpse.data.sets.image_folder import ImageFolder
from glimpse.data.spec import Arrays, Source
from makers import make_image_folder


class Shade(ImageDataModule):
    """Images of one brightness, which an argument decides, "read" from a file that says nothing."""

    def __init__(
        self, shade: int = 10, *steps: int, names: Mapping[str, str] | None = None, **common: Any
    ) -> None:
        super().__init__(**common)
        self.shade, self.steps, self.names = shade, steps, names

    def source_files(self) -> Iterable[Path]:
        return [self.data_dir / "file"]

    def read(self) -> Source:
        images = np.full((20, 2, 2, 1), self.shade, np.uint8)
        return Source(("a", "b"), Arrays(images, np.arange(20) % 2))


class Darker(Shade):
    """Takes another argument and leaves the rest to its parent."""

    def __init__(self, *, by: int = 0, **common: Any) -> None:
        super().__init__(**common)
        self.shade -= by


class Revised(Shade):
    """The same reader, edited."""

    version: ClassVar[int] = 2


COMMON: dict[str, Any] = {"seed": 0, "batch_size": 4, "val_fraction": 0.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"nothing")
    return tmp_path


def shade_of(data: ImageDataModule) -> int:
    data.prepare_data()
    data.setup()
    return int(next(iter(data.batches.loader("train"))).images[0].max())


def num_caches(folder: Path) -> int:
    return len(list((folder / ".cache").glob("*/train.npy")))


def test_an_argument_of_a_subclass_has_its_own_cache(folder: Path) -> None:
    common = COMMON | {"data_dir": str(folder)}
    assert shade_of(Shade(**common)) == 10
    assert shade_of(Shade(shade=50, **common)) == 50
    assert shade_of(Shade(60, **common)) == 60  # by position
    assert num_caches(folder) == 3
    assert shade_of(Shade(10, **common)) == 10  # the default, given
    assert shade_of(Shade(shade=60, **common)) == 60
    assert num_caches(folder) == 3
    shade_of(Shade(10, 1, 2, **common))
    shade_of(Shade(names={"a": "ant"}, **common))
    assert num_caches(folder) == 5


def test_so_has_one_that_a_subclass_hands_on(folder: Path) -> None:
    common = COMMON | {"data_dir": str(folder)}
    assert shade_of(Darker(shade=90, by=5, **common)) == 85
    assert shade_of(Darker(shade=80, by=5, **common)) == 75
    assert shade_of(Darker(shade=80, **common)) == 80
    assert shade_of(Darker(**common)) == shade_of(Darker(shade=10, by=0, **common)) == 10
    assert num_caches(folder) == 4


def test_arguments_of_every_dataset_share_one_cache(folder: Path) -> None:
    common = COMMON | {"data_dir": str(folder)}
    for option in ({}, {"seed": 3}, {"batch_size": 2}, {"size": 4}, {"classes": ["b", "a"]}):
        shade_of(Shade(**common | option))
    assert num_caches(folder) == 1


def test_an_edited_reader_and_one_of_the_same_name_have_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = COMMON | {"data_dir": str(folder)}
    shade_of(Shade(**common))
    shade_of(Revised(**common))
    assert num_caches(folder) == 2
    monkeypatch.setattr(Shade, "version", 2, raising=False)
    shade_of(Shade(**common))
    shade_of(Revised(**common))  # what it is derived from was edited
    assert num_caches(folder) == 4
    monkeypatch.setattr(Shade, "__module__", "another.module")
    shade_of(Shade(**common))
    assert num_caches(folder) == 5


def test_an_edit_of_the_file_of_a_class_makes_a_new_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "edited_data.py"
    code = "from glimpse.data.sets.digits import Digits\nclass Mine(Digits):\n    shade = {}\n"
    found = []
    for shade in (1, 1, 22):
        file.write_text(code.format(shade))
        module = importlib.import_module("edited_data")
        found.append(readers(importlib.reload(module).Mine, ImageDataModule))
    assert found[0] == found[1] != found[2]


def test_a_dataset_can_still_be_copied_and_misused(folder: Path) -> None:
    data = Shade(70, **COMMON, data_dir=str(folder))
    assert shade_of(copy.copy(data)) == 70
    with pytest.raises(TypeError, match="data_dir"):
        Shade(70)
    with pytest.raises(TypeError, match="unknown"):
        Shade(**COMMON, data_dir=str(folder), unknown=1)


# Where the dataset lies -------------------------------------------------------------------------


class Elsewhere(ImageFolder):
    """A folder that the base knows nothing of, and a list beside it."""

    def __init__(self, *, place: str, listed: Path, **common: Any) -> None:
        super().__init__(root=place, **common)
        self.listed = listed


@pytest.mark.parametrize("kind", ["folder", "elsewhere", "table"])
def test_a_folder_that_has_moved_keeps_its_cache(tmp_path: Path, kind: str) -> None:
    def opened(base: Path) -> None:
        common = COMMON | {"data_dir": str(tmp_path / "data"), "num_workers": 1}
        data: ImageDataModule
        if kind == "folder":
            data = ImageFolder(root=str(base / "photos"), **common)
        elif kind == "elsewhere":
            train = base / "photos" / "train"
            data = Elsewhere(place=str(base / "photos"), listed=train / "list.txt", **common)
        else:
            data = CsvTable(train=str(base / "table.csv"), **common)
        data.prepare_data()

    make_image_folder(tmp_path / "a")
    paths = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.png"))
    rows = [f"{path},{path.parent.name}" for path in paths]
    (tmp_path / "a" / "table.csv").write_text("\n".join(["path,label", *rows]))
    opened(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b" / "c")
    opened(tmp_path / "b" / "c")
    assert num_caches(tmp_path / "data") == 1


def test_a_path_is_the_same_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    for root in (str(tmp_path / "photos"), "photos", "./photos/"):
        ImageFolder(root=root, **COMMON, data_dir=str(tmp_path), num_workers=1).prepare_data()
    assert num_caches(tmp_path) == 1


def test_folders_one_above_the_other_are_not_the_same(tmp_path: Path) -> None:
    make_image_folder(tmp_path / "a")
    pattern = r"^([^/]+)/"
    common = COMMON | {"data_dir": str(tmp_path), "num_workers": 1}
    names = []
    shutil.copytree(tmp_path / "a" / "photos" / "train", tmp_path / "set" / "in" / "x")
    shutil.copytree(tmp_path / "a" / "photos" / "val", tmp_path / "set" / "in" / "y")
    for root, expression in ((tmp_path / "set" / "in", pattern), (tmp_path / "set", r"/([^/]+)/")):
        data = ImageFolder(root=str(root), pattern=expression, **common)
        data.prepare_data()
        data.setup()
        names.append(data.spec.class_names)
    assert names == [("x", "y"), ("x", "y")]
    same = [ImageFolder(root=str(tmp_path / r), pattern="(.)", **common) for r in ("set", "set/in")]
    assert cache_key(same[0]) != cache_key(same[1])
    sourced = ImageFolder(root=str(tmp_path / "set"), pattern="(.)", source="https://x", **common)
    assert cache_key(sourced) == cache_key(same[0])


# Values -----------------------------------------------------------------------------------------


class Plain:
    """An object with a value in it."""

    def __init__(self, value: object) -> None:
        self.value = value


def text(value: object) -> str:
    return described(value, lambda path: path)


@pytest.mark.parametrize(
    "values",
    [
        (1, 2, "1", 1.5, True, None, b"1", [1], {1: 1}),
        ([1, 2], [2, 1], [[1], 2]),
        ({"a": 1}, {"a": 2}, {"b": 1}, {}),
        (np.arange(3), np.arange(4), np.arange(3).astype(np.int8)),
        (re.compile("a" * 300 + "b"), re.compile("a" * 300 + "c"), re.compile("a")),
        (Plain(1), Plain(2), Plain([Plain(1)])),
        (functools.partial(int, base=2), functools.partial(int, base=3), int, float, len),
        (lambda x: x + 1, lambda x: x + 2, lambda x, y=1: x + y, lambda x, y=2: x + y),
        (os.path.join, os.path.split),
    ],
)
def test_other_values_are_other_texts(values: tuple[object, ...]) -> None:
    assert len(set(map(text, values))) == len(values)


def test_equal_values_are_the_same_text() -> None:
    for first, second in (
        ([1, "a"], OmegaConf.create([1, "a"])),
        ({"a": [1], "b": None}, OmegaConf.create({"b": None, "a": [1]})),
        ((1, 2), [1, 2]),
        (Path("a"), "a"),
        (Plain(1), Plain(1)),
        ({"c", "a", "b"}, {"b", "a", "c"}),
        (open, open),
    ):
        assert text(first) == text(second)
    endless: list[object] = []
    endless.append(endless)
    assert len(text(endless)) < 1000


def test_what_cannot_be_pickled_has_no_address() -> None:
    def numbers() -> Iterable[int]:
        yield 1

    assert "0x" not in text(numbers())
    assert text(numbers()) == text(numbers())
