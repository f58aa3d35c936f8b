"""Files that are not what their name says, and every one that cannot be decoded."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from glimpse.data import processes
from glimpse.data.decode import PixelFormat
from glimpse.data.inspect.headers import broken_files, file_facts
from glimpse.errors import UserError
from makers import save_image


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Eight whole JPEGs of 24×20."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    paths = [tmp_path / f"{number}.jpg" for number in range(8)]
    for path in paths:
        save_image(pixels, path)
    return paths


def test_formats_modes_and_sizes_are_counted(paths: list[Path]) -> None:
    save_image(np.zeros((10, 12, 1), np.uint8), paths[3])
    found = file_facts(paths, num_workers=1)
    assert found.formats == {"JPEG": 8}
    assert found.modes == {"RGB": 7, "L": 1}
    assert (found.num_sizes, found.smallest, found.largest) == (2, (12, 10), (24, 20))
    assert found.odd == {}


@pytest.mark.parametrize(
    ("mode", "image_format", "kinds"),
    [
        ("P", "GIF", {"GIF named .jpg", "with mode P"}),
        ("RGBA", "PNG", {"PNG named .jpg", "with mode RGBA"}),
        ("CMYK", "JPEG", {"with mode CMYK"}),
        ("RGB", "WEBP", {"WEBP named .jpg"}),
        ("RGB", "MPO", set()),  # telephones write them
    ],
)
def test_content_is_held_against_the_name(
    paths: list[Path], mode: str, image_format: str, kinds: set[str]
) -> None:
    more = {"save_all": True, "append_images": [Image.new(mode, (8, 8))]}
    options = more if image_format == "MPO" else {}
    Image.new(mode, (8, 8)).save(paths[5], image_format, **options)
    found = file_facts(paths, num_workers=1)
    assert set(found.odd) == kinds
    assert all(odd.count == 1 and odd.examples == (str(paths[5]),) for odd in found.odd.values())
    assert found.formats[image_format] == (8 if image_format == "JPEG" else 1)


def test_several_pictures_in_one_jpeg_may_be_named_mpo(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (8, 8)) for _ in range(2)]
    pictures[0].save(tmp_path / "a.mpo", save_all=True, append_images=pictures[1:])
    pictures[0].save(tmp_path / "b.mpo", "PNG")
    found = file_facts([tmp_path / "a.mpo", tmp_path / "b.mpo"], num_workers=1)
    assert set(found.odd) == {"PNG named .mpo"}


def test_turned_photos_are_counted_and_some_named(paths: list[Path]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for path in paths[2:7]:
        Image.new("RGB", (8, 8)).save(path, exif=exif)
    turned = file_facts(paths, num_workers=1).odd["rotated or mirrored by EXIF"]
    assert turned.count == 5
    assert turned.examples == tuple(map(str, paths[2:5]))


def test_a_file_that_is_no_image_is_named(paths: list[Path]) -> None:
    paths[4].write_text("<html>")
    with pytest.raises(UserError, match=r"4\.jpg"):
        file_facts(paths, num_workers=1)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_broken_file_is_named(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    monkeypatch.setattr(processes, "CHUNK", 3)
    os.truncate(paths[1], 400)
    paths[4].write_text("<html>not found</html>")
    paths[7].write_bytes(b"")
    save_image(np.zeros((30, 30, 3), np.uint8), paths[6])
    of_any_size = list(broken_files(paths, None, num_workers=num_workers))
    assert [line for line in of_any_size if "\n" in line] == []
    assert [n for n in range(8) if any(str(paths[n]) in line for line in of_any_size)] == [1, 4, 7]
    assert len(of_any_size) == 3
    wanted = PixelFormat(20, 24, 3)
    of_one_size = list(broken_files(paths, wanted, num_workers=num_workers))
    assert len(of_one_size) == 4
    assert any(f"{paths[6]} is 30×30" in line for line in of_one_size)


def test_real_images(samples: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(samples / "data" / "oxford-iiit-pet-sample.zip") as archive:
        archive.extractall(tmp_path)
    images = tmp_path / "oxford-iiit-pet" / "images"
    paths = sorted(images.glob("*.jpg"))
    found = file_facts(paths, num_workers=1)
    assert found.odd["GIF named .jpg"].examples == (str(images / "Abyssinian_34.jpg"),)
    assert found.odd["with mode RGBA"].examples == (str(images / "Abyssinian_5.jpg"),)
    assert found.num_sizes > 50
    assert list(broken_files(paths, None, num_workers=2)) == []
