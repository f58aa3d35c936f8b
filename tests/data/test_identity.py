"""The same content is the same data wherever and whenever it was written; other content is not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from glimpse.data import processes
from glimpse.data.identity import END, common_folder, identity, mark
from glimpse.data.module import ImageDataModule
from glimpse.data.sets.csv_table import CsvTable
from glimpse.data.sets.image_folder import ImageFolder
from glimpse.data.sets.mnist import MNIST
from glimpse.data.spec import Arrays
from glimpse.errors import UserError
from makers import make_cifar10_images, make_image_folder, make_mnist, save_image


def opened(photos: Path, data_dir: Path, **options: object) -> ImageFolder:
    common = {"seed": 0, "batch_size": 8, "val_fraction": 0.25, "num_workers": 1}
    data = ImageFolder(root=str(photos), data_dir=str(data_dir), **common | options)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_image_folder(tmp_path)
    return tmp_path / "photos"


def touch_all(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, ns=(10**18, 10**18 + number))


@pytest.mark.parametrize("cached", [True, False])
def test_touched_files_are_the_same_data(photos: Path, tmp_path: Path, cached: bool) -> None:
    before = opened(photos, tmp_path, cache=cached)
    touch_all(photos)
    after = opened(photos, tmp_path, cache=cached)
    assert after.fingerprint == before.fingerprint
    if cached:  # which looks at times alone, and so was built again
        assert len(list((tmp_path / ".cache").glob("*/train.npy"))) == 2


@pytest.mark.parametrize("cached", [True, False])
def test_a_copy_elsewhere_is_the_same_data(photos: Path, tmp_path: Path, cached: bool) -> None:
    other = tmp_path / "another machine" / "pictures"
    shutil.copytree(photos, other, copy_function=shutil.copyfile)
    touch_all(other)
    first = opened(photos, tmp_path / "a", cache=cached)
    second = opened(other, tmp_path / "b", cache=cached)
    assert first.fingerprint == second.fingerprint


def one_byte(photos: Path) -> None:
    path = photos / "train" / "cat" / "cat_1.png"
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1  # of the checksum of the last chunk, which Pillow does not mind
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def renamed(photos: Path) -> None:
    path = photos / "train" / "cat" / "cat_1.png"
    path.rename(path.with_name("cat_1b.png"))


def moved_to_another_class(photos: Path) -> None:
    (photos / "train" / "cat" / "cat_3.png").rename(photos / "train" / "dog" / "cat_3.png")


def class_renamed(photos: Path) -> None:
    for part in ("train", "val"):
        (photos / part / "owl").rename(photos / part / "owls")


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("change", [one_byte, renamed, moved_to_another_class, class_renamed])
def test_other_content_is_other_data(
    photos: Path, tmp_path: Path, change: Callable[[Path], None], cached: bool
) -> None:
    before = opened(photos, tmp_path / "before", cache=cached).fingerprint
    change(photos)
    assert opened(photos, tmp_path / "after", cache=cached).fingerprint != before


def test_a_label_in_a_table_counts(tmp_path: Path) -> None:
    for number in range(12):
        save_image(np.full((4, 4, 1), 20 * number, np.uint8), tmp_path / f"{number}.png")

    def fingerprint(labels: str, data_dir: str, cached: bool) -> str:
        rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
        (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
        data = CsvTable(
            train=str(tmp_path / "table.csv"), data_dir=str(tmp_path / data_dir), seed=0,
            batch_size=8, val_fraction=0.0, num_workers=1, cache=cached,
        )  # fmt: skip
        data.prepare_data()
        data.setup()
        return data.fingerprint

    found = [
        fingerprint("abababababab", name, cached) for name, cached in (("x", True), ("y", False))
    ]
    assert found[0] == found[1]
    assert fingerprint("abababababba", "z", True) != found[0]


def test_pixels_of_arrays_count_by_every_byte(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    options = {"data_dir": str(tmp_path), "seed": 0, "batch_size": 8, "val_fraction": 0.0}
    data: list[ImageDataModule] = [MNIST(**options, cache=cached) for cached in (True, False)]  # type: ignore[arg-type]
    for each in data:
        each.prepare_data()
        each.setup()
    assert data[0].fingerprint == data[1].fingerprint
    images = np.random.default_rng(0).integers(0, 256, (600, 3, 4, 1), np.uint8)
    labels = np.arange(600) % 3
    names = tuple("abc")

    def of(images: np.ndarray, labels: np.ndarray = labels) -> str:
        return identity(names, {"train": Arrays(images, labels)}, {})

    assert of(images) == of(
        np.asfortranarray(images)
    )  # the same pixels, whatever their order in memory
    swapped = images.copy()
    swapped[[0, 1]] = swapped[[1, 0]]  # has the histogram that the images have
    assert of(swapped) != of(images)
    assert of(images.reshape(600, 4, 3, 1)) != of(images)
    assert of(images, labels[::-1]) != of(images)


def test_the_identity_is_that_of_the_pass_that_decodes_whoever_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "CHUNK", 5)
    make_cifar10_images(tmp_path)
    root = tmp_path / "cifar10"
    found = [
        opened(root, tmp_path / str(workers), num_workers=workers).fingerprint for workers in (1, 2)
    ]
    found.append(opened(root, tmp_path, cache=False, num_workers=3).fingerprint)
    assert len(set(found)) == 1


def test_files_that_are_left_out_do_not_count(photos: Path, tmp_path: Path) -> None:
    bad = photos / "train" / "cat" / "bad.png"
    bad.write_text("<html>")
    skipping = opened(photos, tmp_path / "a", on_bad_file="skip").fingerprint
    bad.write_text("<html> of another kind")
    assert opened(photos, tmp_path / "b", on_bad_file="skip").fingerprint == skipping
    bad.unlink()
    assert opened(photos, tmp_path / "c").fingerprint == skipping


def test_stored_sizes_are_part_of_the_fingerprint(photos: Path, tmp_path: Path) -> None:
    found = {opened(photos, tmp_path, presize=side, size=8).fingerprint for side in (8, 16, None)}
    assert len(found) == 3


def test_without_the_cache_a_missing_file_is_named(photos: Path, tmp_path: Path) -> None:
    data = opened(photos, tmp_path, cache=False)
    (photos / "val" / "dog" / "dog_0.png").unlink()
    with pytest.raises(UserError, match=r"dog_0\.png is missing, but the dataset lists it"):
        _ = data.fingerprint


# Marks of files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2 * END - 1, 2 * END, 2 * END + 1, 5 * END])
def test_a_mark_is_of_both_ends_and_the_size(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    path = tmp_path / "file"

    def mark_of(content: bytes) -> bytes:
        path.write_bytes(content)
        return mark(path)

    before = mark_of(content)
    assert len(before) == 16
    assert mark_of(content) == before
    assert mark_of(content + b"\0") != before
    if size:
        assert mark_of(content[:-1] + bytes([content[-1] ^ 1])) != before
        assert mark_of(bytes([content[0] ^ 1]) + content[1:]) != before
    if 1 < size <= 2 * END:
        middle = size // 2
        assert mark_of(content[:middle] + b"0123456789" + content[middle + 10 :]) != before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    mark(tmp_path / "pipe")


def test_the_common_folder() -> None:
    assert common_folder(["/a/cat/1.png", "/a/cats/1.png"]) == "/a/"
    assert common_folder(["/a/cat/1.png"]) == "/a/cat/"
    assert common_folder(["cat/1.png", "dog/1.png"]) == ""
    assert common_folder([]) == ""
