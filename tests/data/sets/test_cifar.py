"""CIFAR-10 and CIFAR-100, as pickled batches and as files."""

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glimpse.data.sets.cifar import CIFAR10, CIFAR100
from glimpse.errors import UserError
from makers import (
    CIFAR10_CLASSES,
    make_cifar10,
    make_cifar10_images,
    make_cifar100,
    python2_pickle,
    shades,
)


def cifar(data_dir: Path, *, of: type[CIFAR10] = CIFAR10, **options: Any) -> CIFAR10:
    common: dict[str, Any] = {"seed": 0, "batch_size": 64, "val_fraction": 0.0, "num_workers": 1}
    data = of(data_dir=str(data_dir), **common | options)
    data.prepare_data()
    data.setup()
    return data


def error_of(data_dir: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        cifar(data_dir, **options)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def pixels(data: CIFAR10, split: str) -> np.ndarray:
    return torch.cat([batch.images for batch in data.batches.loader(split)]).numpy()


def test_pickles_hold_what_was_put_in(tmp_path: Path) -> None:
    make_cifar10(tmp_path, per_class=5)
    data = cifar(tmp_path)
    assert data.spec.class_names == CIFAR10_CLASSES
    labels = list(range(10)) * 5
    assert data.labels("train").tolist() == labels
    assert data.labels("val").tolist() == list(range(10)) * 2
    expected = shades(labels, 10, size=32, channels=3, seed=0)
    np.testing.assert_array_equal(pixels(data, "train"), expected)


def test_pickles_of_today_are_read_as_well(tmp_path: Path) -> None:
    """A repacked copy, whose strings are strings."""
    make_cifar10(tmp_path)
    before = cifar(tmp_path, cache=False)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        content = pickle.loads(path.read_bytes(), encoding="latin1")
        path.write_bytes(pickle.dumps(content, protocol=4))
    after = cifar(tmp_path, cache=False)
    assert after.spec == before.spec
    np.testing.assert_array_equal(pixels(after, "train"), pixels(before, "train"))


def test_cifar100_has_its_fine_labels(tmp_path: Path) -> None:
    make_cifar100(tmp_path, per_class=2)
    data = cifar(tmp_path, of=CIFAR100)
    assert data.spec.num_classes == 100
    assert data.spec.class_names[99] == "fine_99"
    assert data.labels("train").tolist() == list(range(100)) * 2
    assert pixels(data, "val").shape == (100, 32, 32, 3)


def test_accents_in_the_names_of_folders_may_be_characters_of_their_own(tmp_path: Path) -> None:
    make_cifar10_images(tmp_path)
    for part in ("train", "test"):
        folder = tmp_path / "cifar10" / part / CIFAR10_CLASSES[0]
        folder.rename(folder.with_name("ae\u0301roplane"))  # as macOS writes é
    assert cifar(tmp_path).spec.class_names[0] == "a\u00e9roplane"


def test_images_as_files_in_place_of_the_archive(tmp_path: Path) -> None:
    make_cifar10_images(tmp_path)
    (tmp_path / "cifar10" / "train" / ".ipynb_checkpoints").mkdir()
    data = cifar(tmp_path)
    assert data.spec.class_names == CIFAR10_CLASSES
    assert data.labels("train").tolist() == np.repeat(np.arange(10), 4).tolist()
    assert data.labels("val").tolist() == np.repeat(np.arange(10), 2).tolist()
    means = pixels(data, "val").mean((1, 2, 3)).reshape(10, 2)
    assert (np.diff(means.mean(1)) > 8).all()


def test_the_archive_comes_before_the_files(tmp_path: Path) -> None:
    make_cifar10(tmp_path, per_class=6)
    make_cifar10_images(tmp_path, per_class=2)
    assert len(cifar(tmp_path).splits["train"].rows) == 60


# Pickles that are not what they should be -------------------------------------------------------


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("file", ["data_batch_2", "batches.meta", "test_batch"])
def test_a_pickle_that_carries_code_is_refused_and_not_run(tmp_path: Path, file: str) -> None:
    make_cifar10(tmp_path)
    proof = tmp_path / "proof"
    content = {"data": Evil(proof), "labels": [], "label_names": []}
    path = tmp_path / "cifar-10-batches-py" / file
    path.write_bytes(pickle.dumps(content, 2))
    message = error_of(tmp_path)
    assert str(path) in message
    assert "mkdir is not allowed" in message
    assert not proof.exists()
    pickle.loads(path.read_bytes())  # the proof that it would have
    assert proof.exists()


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def of_other_keys(path: Path) -> None:
    python2_pickle({"images": [], "classes": []}, path)


def no_dict(path: Path) -> None:
    python2_pickle([1, 2, 3], path)


def no_pickle(path: Path) -> None:
    path.write_text("<html>not here</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("file", ["data_batch_2", "batches.meta"])
@pytest.mark.parametrize("damage", [truncated, of_other_keys, no_dict, no_pickle, empty])
def test_a_damaged_batch_is_named(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    make_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / file
    damage(path)
    assert str(path) in error_of(tmp_path)


@pytest.mark.parametrize("cache", [True, False])
def test_a_missing_batch_is_named(tmp_path: Path, cache: bool) -> None:
    make_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert "data_batch_3" in error_of(tmp_path, cache=cache)


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_out_of_range_is_named(tmp_path: Path, label: int) -> None:
    make_cifar10(tmp_path)
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [3, label]}
    python2_pickle(batch, tmp_path / "cifar-10-batches-py" / "test_batch")
    message = error_of(tmp_path)
    assert f"row 1 of the heldout images has the label {label}: expected 0 to 9" in message


def test_labels_that_are_too_few_are_counted(tmp_path: Path) -> None:
    make_cifar10(tmp_path)
    batch = {"data": np.zeros((3, 3072), np.uint8), "labels": [3, 4]}
    python2_pickle(batch, tmp_path / "cifar-10-batches-py" / "test_batch")
    assert "3 heldout images but 2 labels" in error_of(tmp_path)


# Files that are not what they should be ---------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "test"])
def test_files_without_a_part_are_told_which(tmp_path: Path, part: str) -> None:
    make_cifar10_images(tmp_path)
    shutil.rmtree(tmp_path / "cifar10" / part)
    assert f"{tmp_path / 'cifar10' / part}: no class folders found; expected a folder" in error_of(
        tmp_path
    )


def test_test_files_of_an_unknown_class(tmp_path: Path) -> None:
    make_cifar10_images(tmp_path)
    (tmp_path / "cifar10" / "test" / "cat").rename(tmp_path / "cifar10" / "test" / "lion")
    assert "lion is not a class of the training set" in error_of(tmp_path)


def test_a_class_without_files(tmp_path: Path) -> None:
    make_cifar10_images(tmp_path)
    for path in (tmp_path / "cifar10" / "train" / "cat").iterdir():
        path.unlink()
    assert "the class cat has no images" in error_of(tmp_path)


def test_real_images(samples: Path, tmp_path: Path) -> None:
    archive = samples / "data" / "cifar10-sample.zip"
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    data = cifar(tmp_path, url=archive.as_uri(), sha256=sha256, normalize="dataset")
    assert data.spec.class_names == CIFAR10_CLASSES
    assert np.bincount(data.labels("train")).tolist() == [300] * 10
    assert np.bincount(data.labels("val")).tolist() == [60] * 10
    # of all training images, by Stevens et al. 2020, chapter 7
    assert data.spec.mean == pytest.approx((0.4915, 0.4823, 0.4468), abs=0.01)
    assert data.spec.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: np.asarray(data).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
        lambda data: np.asarray(data, np.float32),
    ],
)
def test_images_in_another_form_are_named(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    make_cifar10(tmp_path)
    for path in (tmp_path / "cifar-10-batches-py").glob("*_batch*"):
        content = pickle.loads(path.read_bytes(), encoding="latin1")
        path.write_bytes(pickle.dumps(content | {"data": change(content["data"])}, 2))
    message = error_of(tmp_path)
    assert "data_batch_1: its images are " in message
    assert "expected N×3072 of uint8" in message


def test_labels_that_are_no_whole_numbers_are_named(tmp_path: Path) -> None:
    make_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    content = pickle.loads(path.read_bytes(), encoding="latin1")
    labels = [label + 0.7 for label in content["labels"]]
    path.write_bytes(pickle.dumps(content | {"labels": labels}, 2))
    assert "expected whole numbers" in error_of(tmp_path)
