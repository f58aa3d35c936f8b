"""MNIST, Fashion-MNIST and their idx files."""

import gzip
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glimpse.data.sets.mnist import FILES, MNIST, FashionMNIST, read_idx
from glimpse.errors import UserError
from makers import make_fashion_mnist, make_mnist, shades, write_idx

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


def mnist(data_dir: Path, *, of: type[MNIST] = MNIST, **options: Any) -> MNIST:
    common: dict[str, Any] = {"seed": 0, "batch_size": 64, "val_fraction": 0.0}
    data = of(data_dir=str(data_dir), **common | options)
    data.prepare_data()
    data.setup()
    return data


def pixels(data: MNIST, split: str) -> np.ndarray:
    return torch.cat([batch.images for batch in data.batches.loader(split)]).numpy()


def unzip(raw: Path) -> None:
    for path in raw.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


@pytest.mark.parametrize("zipped", [True, False])
def test_images_labels_and_names(tmp_path: Path, zipped: bool) -> None:
    make_mnist(tmp_path)
    if not zipped:
        unzip(tmp_path / "MNIST" / "raw")
    data = mnist(tmp_path)
    assert data.spec.class_names == tuple("0123456789")
    labels = list(range(10)) * 4
    assert data.labels("train").tolist() == labels
    assert data.labels("val").tolist() == list(range(10)) * 2
    expected = shades(labels, 10, size=28, channels=1, seed=0)
    np.testing.assert_array_equal(pixels(data, "train"), expected)


@pytest.mark.parametrize("layout", ["{dotted}", "raw/{dotted}", "raw/{name}/{name}"])
def test_files_as_some_unpackers_name_them(layout: str, tmp_path: Path) -> None:
    make_mnist(tmp_path)
    expected = pixels(mnist(tmp_path), "train")
    unzip(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw").rename(tmp_path / "plain")
    for name in FILES:
        path = tmp_path / "MNIST" / layout.format(name=name, dotted=name.replace("-idx", ".idx"))
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).rename(path)
    np.testing.assert_array_equal(pixels(mnist(tmp_path), "train"), expected)


def test_fashion_has_its_own_folder_and_names(tmp_path: Path) -> None:
    make_fashion_mnist(tmp_path)
    spec = mnist(tmp_path, of=FashionMNIST).spec
    assert (spec.channels, spec.height, spec.width) == (1, 28, 28)
    assert (spec.class_names[0], spec.class_names[9]) == ("T-shirt/top", "Ankle boot")


# Damaged files ----------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_inside(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-5]))


def header_only(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0\0\x08\x03"))


def of_floats(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:2] + b"\x0d" + content[3:]))


def web_page(path: Path) -> None:
    path.write_text("<html>moved</html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flipped_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [cut, cut_inside, header_only, of_floats, web_page, empty, flipped_byte]
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    make_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    damage(path)
    with pytest.raises(UserError) as error:
        mnist(tmp_path)
    assert f"cannot read {path}" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_images_and_labels_mixed_up(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    shutil.copy(raw / f"{FILES[1]}.gz", raw / f"{FILES[0]}.gz")
    with pytest.raises(UserError, match="it has 1 dimensions, expected 3"):
        mnist(tmp_path)


def test_labels_of_the_other_part(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    shutil.copy(raw / f"{FILES[1]}.gz", raw / f"{FILES[3]}.gz")
    with pytest.raises(UserError, match="20 heldout images but 40 labels"):
        mnist(tmp_path)


def test_idx_of_any_shape(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (300, 2, 5), np.uint8)
    write_idx(array, tmp_path / "a.gz")
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz", expected_ndim=3), array)


def test_what_an_idx_file_holds_beyond_its_shape_is_not_unpacked(tmp_path: Path) -> None:
    write_idx(np.zeros((2, 2, 5), np.uint8), tmp_path / "a.gz")
    content = gzip.decompress((tmp_path / "a.gz").read_bytes())
    (tmp_path / "a.gz").write_bytes(gzip.compress(content + bytes(2**20)))
    with pytest.raises(UserError, match=r"a\.gz: it contains more than the shape \[2, 2, 5\]"):
        read_idx(tmp_path / "a.gz", expected_ndim=3)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content[:4] + b"\x7f\xff\xff\xff" * 3))
    with pytest.raises(UserError, match="its header states an impossible shape"):
        read_idx(tmp_path / "a.gz", expected_ndim=3)


# Getting the files ------------------------------------------------------------------------------


def test_files_come_from_the_folder_that_a_url_names(tmp_path: Path) -> None:
    make_mnist(tmp_path / "mirror")
    raw = tmp_path / "mirror" / "MNIST" / "raw"
    data = mnist(tmp_path / "data", url=raw.as_uri())
    assert len(data.splits["train"].rows) == 40
    shutil.rmtree(raw)  # needed no more
    mnist(tmp_path / "data", url=raw.as_uri())


def test_only_the_missing_file_is_fetched(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / f"{FILES[2]}.gz").unlink()
    with pytest.raises(UserError, match=rf"none/{FILES[2]}\.gz: no such file"):
        mnist(tmp_path, url=(tmp_path / "none").as_uri())


def test_an_archive_of_another_layout_is_told(tmp_path: Path) -> None:
    make_mnist(tmp_path / "made")
    made = shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "made" / "MNIST")
    sha256 = hashlib.sha256(Path(made).read_bytes()).hexdigest()
    with pytest.raises(UserError, match=rf"MNIST/raw: expected {FILES[0]}\.gz"):
        mnist(tmp_path / "data", url=Path(made).as_uri(), sha256=sha256)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason=f"{DEBIAN} is not there")
def test_all_of_fashion_mnist(tmp_path: Path) -> None:
    data = mnist(tmp_path, of=FashionMNIST, url=DEBIAN.as_uri(), normalize="dataset")
    assert np.bincount(data.labels("train")).tolist() == [6000] * 10
    assert np.bincount(data.labels("val")).tolist() == [1000] * 10
    assert data.labels("train")[:5].tolist() == [9, 0, 0, 3, 0]  # an ankle boot comes first
    assert data.spec.mean == (0.286,)
    assert data.spec.std == (0.353,)
