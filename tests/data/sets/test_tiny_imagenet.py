"""Tiny ImageNet in the layout of its archive."""

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glimpse.data.sets.tiny_imagenet import TinyImageNet
from glimpse.errors import UserError
from makers import TINY_CLASSES, make_tiny_imagenet


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_tiny_imagenet(tmp_path)
    return tmp_path / "tiny-imagenet-200"


def tiny_imagenet(data_dir: Path, **options: Any) -> TinyImageNet:
    common: dict[str, Any] = {"seed": 0, "batch_size": 64, "val_fraction": 0.0, "num_workers": 1}
    data = TinyImageNet(data_dir=str(data_dir), **common | options)
    data.prepare_data()
    data.setup()
    return data


def test_labels_are_lines_of_wnids(root: Path) -> None:
    data = tiny_imagenet(root.parent)
    assert {name: len(split.rows) for name, split in data.splits.items()} == {
        "train": 24,
        "val": 12,
    }
    assert data.labels("train").tolist() == np.repeat(np.arange(6), 4).tolist()
    assert data.labels("val").tolist() == [0, 1, 2, 3, 4, 5] * 2
    [batch] = data.val_dataloader()
    assert batch.images.shape == (12, 64, 64, 3)
    # the makers' shades: a brighter one for each label
    assert (batch.images.float().mean((1, 2, 3)).view(2, 6).diff(dim=1) > 10).all()


def test_the_order_of_the_annotations_does_not_matter(root: Path) -> None:
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("\n".join(reversed(annotations.read_text().splitlines())) + "\n")
    data = tiny_imagenet(root.parent)
    assert data.labels("val").tolist() == [5, 4, 3, 2, 1, 0] * 2
    [batch] = data.val_dataloader()
    assert (batch.images.float().mean((1, 2, 3)).view(2, 6).diff(dim=1) < -10).all()


def test_class_names_are_first_synonyms_told_apart_by_wnid(root: Path) -> None:
    assert tiny_imagenet(root.parent).spec.class_names == (
        "Egyptian cat", "reel", "volleyball", "rocking chair",
        "crane (n03126707)", "crane (n02012849)",
    )  # fmt: skip


def test_a_line_of_words_without_a_name_leaves_the_wnid(root: Path) -> None:
    wnid = next(iter(TINY_CLASSES))
    lines = (root / "words.txt").read_text().splitlines()
    kept = [wnid if line.startswith(wnid) else line for line in lines]
    (root / "words.txt").write_text("\n".join(kept))
    assert tiny_imagenet(root.parent).spec.class_names[0] == wnid


def test_grey_files_become_rgb(root: Path) -> None:
    wnid = next(iter(TINY_CLASSES))
    path = root / "train" / wnid / "images" / f"{wnid}_0.JPEG"
    with Image.open(path) as image:
        assert image.mode == "L"
        grey = np.asarray(image)
    [batch] = tiny_imagenet(root.parent).batches.loader("train")
    np.testing.assert_array_equal(batch.images[0], np.repeat(grey[..., None], 3, axis=2))


def unknown_wnid(root: Path) -> None:
    with (root / "val" / "val_annotations.txt").open("a") as annotations:
        annotations.write("val_0.JPEG\tn99999999\t0\t0\t62\t62\n")


def unreadable_line(root: Path) -> None:
    with (root / "val" / "val_annotations.txt").open("a") as annotations:
        annotations.write("val_0.JPEG\n")


def empty_class(root: Path) -> None:
    for path in (root / "train" / "n04540053" / "images").iterdir():
        path.unlink()


def missing_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "n04540053")


def one_level_too_deep(root: Path) -> None:
    root.rename(root.with_name("moved"))
    root.mkdir()
    root.with_name("moved").rename(root / "tiny-imagenet-200")


def truncated(root: Path) -> None:
    path = root / "val" / "images" / "val_3.JPEG"
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unknown_wnid, ["val_annotations.txt, line 13", "'n99999999' is not in wnids.txt"]),
        (unreadable_line, ["val_annotations.txt, line 13", "'' is not in wnids.txt"]),
        (empty_class, ["the class n04540053 in wnids.txt has no training images"]),
        (missing_class, ["the class n04540053 in wnids.txt has no training images"]),
        (one_level_too_deep, ["expected wnids.txt", "found tiny-imagenet-200"]),
        (truncated, ["val_3.JPEG"]),
        (lambda root: (root / "wnids.txt").unlink(), ["expected wnids.txt", "found test, train"]),
        (lambda root: (root / "words.txt").unlink(), ["words.txt"]),
        (lambda root: (root / "val" / "val_annotations.txt").unlink(), ["val_annotations.txt"]),
        (lambda root: (root / "val" / "images" / "val_3.JPEG").unlink(), ["val_3.JPEG"]),
        (lambda root: shutil.rmtree(root / "val"), ["val_annotations.txt"]),
        (lambda root: shutil.rmtree(root / "val" / "images"), ["val_0.JPEG"]),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(
    root: Path, damage: Callable[[Path], object], words: list[str]
) -> None:
    damage(root)
    with pytest.raises(UserError) as error:
        tiny_imagenet(root.parent)
    for word in words:
        assert word in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_another_folder_in_the_archive_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("tiny/wnids.txt", "")
    sha256 = hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    with pytest.raises(
        UserError, match="is missing: put the archive's folder tiny-imagenet-200 there"
    ):
        tiny_imagenet(tmp_path, url=(tmp_path / "a.zip").as_uri(), sha256=sha256)


def test_real_images(samples: Path, tmp_path: Path) -> None:
    archive = samples / "data" / "tiny-imagenet-200-sample.zip"
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    data = tiny_imagenet(
        tmp_path, url=archive.as_uri(), sha256=sha256, normalize="dataset", num_workers=2
    )
    sizes = {name: len(split.rows) for name, split in data.splits.items()}
    assert sizes == {"train": 12_000, "val": 2_000}
    assert data.spec.num_classes == len(set(data.spec.class_names)) == 200
    assert data.spec.class_names[0] == "Egyptian cat"
    assert np.bincount(data.labels("train")).tolist() == [60] * 200
    assert np.bincount(data.labels("val")).tolist() == [10] * 200
    # the means that people give for the whole set: 0.480, 0.448, 0.398
    assert data.spec.mean == pytest.approx((0.480, 0.448, 0.398), abs=0.01)
    assert data.spec.std == pytest.approx((0.277, 0.269, 0.282), abs=0.01)
    grey = sum(
        int((b.images[..., :1] == b.images).flatten(1).all(1).sum())
        for b in data.batches.loader("train")
    )
    assert 0 < grey < 1200
