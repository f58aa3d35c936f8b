"""Pets: breeds from file names, images of many sizes, files that are not what their names say."""

import hashlib
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from conftest import composed
from glimpse.assembly import build_data
from glimpse.data.sets.image_folder import ImageFolder
from glimpse.errors import UserError
from makers import BREEDS, make_pets


def pets(data_dir: Path, *overrides: str) -> ImageFolder:
    config, _ = composed("data=pets", f"data_dir={data_dir}", "data.num_workers=1", *overrides)
    data = build_data(config)
    assert isinstance(data, ImageFolder)
    return data


def test_breeds_are_all_before_the_last_underscore_and_number(tmp_path: Path) -> None:
    make_pets(tmp_path, per_class=5)
    data = pets(tmp_path)
    assert data.spec.class_names == BREEDS
    assert (data.spec.height, data.spec.width, data.spec.channels) == (224, 224, 3)
    batch = next(iter(data.batches.loader("train")))
    assert batch.images.shape[1:] == (256, 256, 3)
    shades = [float(image.float().mean()) for image in batch.images]
    expected = [40 + 175 * int(label) / len(BREEDS) for label in batch.labels]
    assert shades == pytest.approx(expected, abs=6)  # GIF and PNG named .jpg among them


def test_a_fifth_of_each_breed_validates(tmp_path: Path) -> None:
    make_pets(tmp_path, per_class=10)
    data = pets(tmp_path, "data.presize=32", "data.size=null")
    assert set(data.splits) == {"train", "val"}
    assert np.bincount(data.labels("val")).tolist() == [2, 2, 2]
    assert np.bincount(data.labels("train")).tolist() == [8, 8, 8]
    same, other = (
        pets(tmp_path, "data.presize=32", "data.size=null", option)
        for option in ("seed=5", "data.split_seed=5")
    )
    assert same.splits["val"].rows.tolist() == data.splits["val"].rows.tolist()
    assert other.splits["val"].rows.tolist() != data.splits["val"].rows.tolist()


def test_another_expression(tmp_path: Path) -> None:
    make_pets(tmp_path)
    data = pets(tmp_path, r"data.pattern='^(?P<label>.)(.*)\.jpg$'", "data.presize=32")
    assert data.spec.class_names == ("A", "g", "p")


@pytest.mark.parametrize("top", ["images", "oxford-iiit-pet/images"])
@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_the_archive_is_unpacked_into_its_folder(tmp_path: Path, top: str, ending: str) -> None:
    make_pets(tmp_path / "made", per_class=5)
    images = tmp_path / "made" / "oxford-iiit-pet" / "images"
    archive = tmp_path / f"any.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for path in images.iterdir():
                zipped.write(path, f"{top}/{path.name}")
    else:
        with tarfile.open(archive, "w:gz") as tarred:
            tarred.add(images, top)
    url = f"data.url={archive.as_uri()}"
    with pytest.raises(UserError, match="is not the expected file"):
        pets(tmp_path / "data", url)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    data = pets(tmp_path / "data", url, f"data.sha256={sha256}", "data.presize=32")
    assert data.root == tmp_path / "data" / "oxford-iiit-pet" / "images"
    assert sum(len(split.rows) for split in data.splits.values()) == 15


def test_real_photographs(samples: Path, tmp_path: Path) -> None:
    archive = samples / "data" / "oxford-iiit-pet-sample.zip"
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    data = pets(
        tmp_path, f"data.url={archive.as_uri()}", f"data.sha256={sha256}", "data.presize=64"
    )
    assert data.spec.num_classes == 37
    assert {"Abyssinian", "great_pyrenees", "shiba_inu"} < set(data.spec.class_names)
    assert {name: len(split.rows) for name, split in data.splits.items()} == {
        "train": 208,
        "val": 53,
    }
