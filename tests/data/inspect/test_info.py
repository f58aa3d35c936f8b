"""What is told of a dataset is what was put into it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glimpse.data.inspect.info import gather_facts
from glimpse.data.module import ImageDataModule
from glimpse.data.sets.digits import Digits
from glimpse.data.sets.image_folder import ImageFolder
from glimpse.data.sets.tiny_imagenet import TinyImageNet
from makers import make_image_folder, make_tiny_imagenet, save_image

COMMON: dict[str, Any] = {
    "seed": 0, "batch_size": 5, "val_fraction": 0.0, "num_workers": 1, "normalize": "dataset",
}  # fmt: skip


def ready(data: ImageDataModule) -> ImageDataModule:
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and val/ with cat, dog and owl, 4 and 2 images each, all different."""
    make_image_folder(tmp_path)
    (tmp_path / "photos" / "train" / "cat" / "cat_3.png").unlink()
    random = np.random.default_rng(0)
    for path in (tmp_path / "photos").rglob("*.png"):
        save_image(random.integers(0, 256, (20, 24, 3), np.uint8), path)
    return tmp_path / "photos"


def image_folder(root: Path, **options: Any) -> ImageDataModule:
    return ready(ImageFolder(root=str(root), data_dir=str(root.parent), **COMMON | options))


def test_sizes_classes_and_majority(photos: Path) -> None:
    facts = gather_facts(image_folder(photos))
    assert (facts.height, facts.width, facts.channels) == (20, 24, 3)
    assert facts.class_names == ("cat", "dog", "owl")
    assert facts.splits["train"].class_counts == (3, 4, 4)
    assert facts.splits["val"].class_counts == (2, 2, 2)
    assert facts.splits["train"].num_images == 11
    assert facts.splits["train"].majority_accuracy == pytest.approx(4 / 11)
    assert facts.splits["val"].origin == "the official held-out set"
    assert facts.duplicates == ()
    assert facts.num_contradictions == 0
    assert [overlap.num_images for overlap in facts.overlaps] == [0]
    assert facts.files is not None
    assert facts.files.formats == {"PNG": 17}


def test_splits_of_one_part_list_its_files_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image_folder(photos / "train", val_fraction=0.3, test_fraction=0.3)
    listed = []
    paths_of = data.source_paths
    monkeypatch.setattr(data, "source_paths", lambda part: (listed.append(part), paths_of(part))[1])
    assert gather_facts(data).files is not None
    assert listed == ["train"]


def test_mean_and_std_are_those_of_the_training_set(photos: Path) -> None:
    data = image_folder(photos)
    facts = gather_facts(data)
    pixels = np.concatenate([batch.images.numpy() for batch in data.batches.loader("train")]) / 255
    assert facts.mean == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-4)
    assert facts.std == pytest.approx(pixels.std((0, 1, 2)), abs=1e-4)


def test_equal_images_are_found_within_and_across_splits(photos: Path) -> None:
    train, val = photos / "train", photos / "val"
    shutil.copy(train / "dog" / "dog_0.png", train / "dog" / "dog_1.png")
    shutil.copy(train / "dog" / "dog_0.png", train / "owl" / "owl_2.png")  # and with another label
    shutil.copy(train / "cat" / "cat_0.png", val / "cat" / "cat_1.png")
    facts = gather_facts(image_folder(photos))
    assert facts.splits["train"].num_repeated == 2
    assert facts.splits["val"].num_repeated == 0
    assert [(o.first, o.second, o.num_images) for o in facts.overlaps] == [("train", "val", 1)]
    assert facts.num_contradictions == 1
    across, within = facts.duplicates
    assert [(place.split, place.image) for place in across] == [
        ("train", str(train / "cat" / "cat_0.png")),
        ("val", str(val / "cat" / "cat_1.png")),
    ]
    assert [place.class_name for place in within] == ["dog", "dog", "owl"]
    assert within[-1].image == str(train / "owl" / "owl_2.png")


def test_equal_images_of_pixels_are_named_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Digits.read(Digits(data_dir="", **COMMON))
    whole.train.images[700] = whole.train.images[3]  # type: ignore[union-attr]
    monkeypatch.setattr(Digits, "read", lambda self: whole)
    facts = gather_facts(ready(Digits(data_dir="", **COMMON | {"test_fraction": 0.5})))
    [group] = facts.duplicates
    assert {place.image for place in group} == {"train[3]", "train[700]"}
    assert facts.files is None


def test_grey_images_of_a_colour_set_are_counted(tmp_path: Path) -> None:
    make_tiny_imagenet(tmp_path)  # one of four in each of six classes
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[0, 0] = 255, 0, 0  # a spot of colour; without loss, as the ending does not say
    save_image(pixels, tmp_path / "spot.png")
    spot = tmp_path / "tiny-imagenet-200/train/n04067472/images/n04067472_1.JPEG"
    shutil.move(tmp_path / "spot.png", spot)
    facts = gather_facts(ready(TinyImageNet(data_dir=str(tmp_path), **COMMON)))
    assert facts.splits["train"].num_grey == 6
    assert facts.splits["val"].num_grey == 0
    assert facts.files is not None
    assert facts.files.modes["L"] == 6
    assert facts.files.odd["PNG named .JPEG"].examples == (str(spot),)


def test_without_a_cache_all_but_the_statistics_is_the_same(photos: Path) -> None:
    cached = gather_facts(image_folder(photos))
    options = {"cache": False, "normalize": "none", "num_workers": 0}
    decoded = gather_facts(image_folder(photos, **options))
    assert (decoded.mean, decoded.std) == (None, None)
    assert decoded.splits == cached.splits
    assert decoded.files == cached.files


def test_some_classes_are_counted_alone(photos: Path) -> None:
    facts = gather_facts(image_folder(photos, classes=["owl", "cat"]))
    assert facts.class_names == ("owl", "cat")
    assert facts.splits["train"].class_counts == (4, 3)
    assert facts.files is not None
    assert sum(facts.files.formats.values()) == 7 + 4
