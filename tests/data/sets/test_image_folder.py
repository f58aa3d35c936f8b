"""One's own images, in the layouts that people have, and a word on those they should not."""

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glimpse.data import formats
from glimpse.data.folders import listing
from glimpse.data.inspect.info import gather_facts
from glimpse.data.sets.image_folder import ImageFolder
from glimpse.errors import UserError
from glimpse.insight.predictions import names_of
from glimpse.runs.predict import image_files
from makers import make_image_folder, save_image


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """train/ and val/ with cat, dog and owl: 4 and 2 images each, 20 high and 24 wide."""
    monkeypatch.chdir(tmp_path)
    make_image_folder(tmp_path)
    return tmp_path / "photos"


def image_folder(root: Path, **options: Any) -> ImageFolder:
    common: dict[str, Any] = {"seed": 0, "batch_size": 4, "val_fraction": 0.0, "num_workers": 1}
    data = ImageFolder(**{"root": str(root), "data_dir": "data"} | common | options)
    data.prepare_data()
    data.setup()
    return data


def sizes(data: ImageFolder) -> dict[str, int]:
    return {name: len(split.rows) for name, split in data.splits.items()}


def error_of(root: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        image_folder(root, **options)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


# Layouts ----------------------------------------------------------------------------------------


def test_train_and_val(photos: Path) -> None:
    data = image_folder(photos)
    assert data.spec.class_names == ("cat", "dog", "owl")
    assert (data.spec.channels, data.spec.height, data.spec.width) == (3, 20, 24)
    assert sizes(data) == {"train": 12, "val": 6}
    assert data.labels("train").tolist() == [0] * 4 + [1] * 4 + [2] * 4
    batch = next(iter(data.val_dataloader()))
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert batch.images.float().mean((1, 2, 3)).tolist() == pytest.approx([40, 40, 98, 98], abs=3)


@pytest.mark.parametrize(
    ("train", "val"), [("train", "valid"), ("training", "validation"), ("Train", "Val")]
)
def test_other_names_of_the_parts(photos: Path, train: str, val: str) -> None:
    (photos / "train").rename(photos / train)
    (photos / "val").rename(photos / val)
    assert sizes(image_folder(photos)) == {"train": 12, "val": 6}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("seg_train", "seg_dev"),
        ("train2017", "val2017"),
        ("images_train", "images-val"),
        ("01 Train", "02 Valid"),
        ("seg_train/seg_train", "seg_val/seg_val"),
        ("train/train", "val/val"),
        ("train", "val/images"),
    ],
)
def test_names_of_the_parts_with_more_words(photos: Path, train: str, val: str) -> None:
    root = photos / "archive"
    shutil.copytree(photos / "train", root / train)
    shutil.copytree(photos / "val", root / val)
    (root / "notes" / "more").mkdir(parents=True)
    data = image_folder(root)
    assert data.spec.class_names == ("cat", "dog", "owl")
    assert sizes(data) == {"train": 12, "val": 6}
    told = data.describe()
    assert (f"train is {train}" in told, f"val is {val}" in told) == (train != "train", True)
    assert "skipped, because not named train, val or test: notes" in told


def test_classes_may_have_the_words_of_parts(photos: Path) -> None:
    for name, folder in (("steam train", "cat"), ("test tube", "dog"), ("model train", "owl")):
        shutil.copytree(photos / "train" / folder, photos / "things" / name / "new")
        shutil.copytree(photos / "val" / folder, photos / "things" / name / "old")
    data = image_folder(photos / "things", test_fraction=0.25)
    assert data.spec.class_names == ("model train", "steam train", "test tube")


def test_train_val_and_test(photos: Path) -> None:
    shutil.copytree(photos / "val" / "dog", photos / "test" / "dog")
    data = image_folder(photos)
    assert sizes(data) == {"train": 12, "val": 6, "test": 2}
    assert data.labels("test").tolist() == [1, 1]


def test_train_and_test(photos: Path) -> None:
    (photos / "val").rename(photos / "test")
    assert sizes(image_folder(photos, val_fraction=0.25)) == {"train": 9, "val": 3, "test": 6}


def test_an_undivided_folder_is_divided(photos: Path) -> None:
    data = image_folder(photos / "train", val_fraction=0.25, test_fraction=0.25)
    assert data.spec.class_names == ("cat", "dog", "owl")
    assert sizes(data) == {"train": 6, "val": 3, "test": 3}


def test_a_class_of_trains(photos: Path) -> None:
    (photos / "train" / "cat").rename(photos / "train" / "train")
    data = image_folder(photos / "train", test_fraction=0.25)
    assert data.spec.class_names == ("dog", "owl", "train")
    assert sizes(data) == {"train": 9, "val": 3}
    (photos / "train" / "dog").rename(photos / "train" / "test")  # now they may be splits
    typed = re.findall(
        r"if train is a class, type '?data\.pattern=(.*?/)'?\);", error_of(photos / "train")
    )
    data = image_folder(photos / "train", test_fraction=0.25, pattern=typed[0])
    assert data.spec.class_names == ("owl", "test", "train")


def test_flat_splits_beside_another_folder_are_no_classes(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for folder in ("train_images", "train_masks", "test_images", "masks"):
        save_image(NOISE, root / folder / "1.png")
    message = error_of(root)
    assert "train_images contains images, expected a folder for each class in it" in message
    assert f"sort the images into {root / 'train_images'}/<class>/" in message
    (root / "train.csv").write_text("id,label\n1,cat\n")
    assert f"type data=csv data.train={root}/train.csv data.folder=train_images" in error_of(root)


def test_a_table_beside_images_hides_no_classes_in_their_names(tmp_path: Path) -> None:
    for name in ("cat.1", "cat.2", "dog.1", "dog.2"):
        save_image(NOISE, tmp_path / "photos" / f"{name}.png")
    (tmp_path / "other.csv").write_text("id,label\n1,cat\n")
    message = error_of(tmp_path / "photos")
    assert "are the classes cat, dog? type " in message
    assert f"; are its labels in a table? type data=csv data.train={tmp_path}/other.csv" in message


@pytest.mark.parametrize("wrapping", ["", "test", "images"])
def test_unlabelled_test_images_are_left_out_and_that_is_said(photos: Path, wrapping: str) -> None:
    for n in range(3):
        save_image(np.zeros((20, 24, 3), np.uint8), photos / "test" / wrapping / f"{n}.png")
    for _ in range(2):  # read, then from the cache
        data = image_folder(photos)
        assert sizes(data) == {"train": 12, "val": 6}
        assert "its test images have no labels, so they are not used" in data.describe()


def test_evaluation_beside_validation_is_the_test_set(photos: Path) -> None:
    shutil.copytree(photos / "val", photos / "evaluation")
    (photos / "val").rename(photos / "validation")
    (photos / "train").rename(photos / "training")
    data = image_folder(photos)
    assert sizes(data) == {"train": 12, "val": 6, "test": 6}
    assert "test is evaluation" in data.describe()
    shutil.copytree(photos / "validation", photos / "test")
    assert "both mean val" in error_of(photos)


def test_a_single_class_of_validation_may_have_folders(photos: Path) -> None:
    for part in ("train", "val"):
        for path in (photos / part).glob("*/*.png"):
            inner = path.parent / f"person{path.stem[-1]}"
            inner.mkdir(exist_ok=True)
            path.rename(inner / path.name)
    for name in ("cat", "dog"):
        shutil.rmtree(photos / "val" / name)
    data = image_folder(photos)
    assert sizes(data) == {"train": 12, "val": 2}
    assert data.labels("val").tolist() == [2, 2]


@pytest.mark.parametrize("root", [".", "{photos}"])
def test_what_glimpse_writes_into_the_root_is_no_class(
    photos: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = root.format(photos=photos / "train")
    monkeypatch.chdir(photos / "train")
    before = image_folder(Path(root), test_fraction=0.25).fingerprint  # the cache creates data/
    save_image(NOISE, Path("data", "MNIST", "1.png"))
    for run in ("image_folder-linear/now", "sweeps/mine/seed=1"):
        Path("outputs", run, ".hydra").mkdir(parents=True)
        save_image(NOISE, Path("outputs", run, "figures", "1.png"))
    for _ in range(2):  # the second from the cache
        data = image_folder(Path(root), test_fraction=0.25)
        assert data.spec.class_names == ("cat", "dog", "owl")
        assert data.fingerprint == before
        assert "skipped, because glimpse writes there: data, outputs" in data.describe()
    assert len(list(Path("data", ".cache").glob("*/train.npy"))) == 1
    by_name = image_folder(Path(root), pattern=r"(\w+)_\d+\.png$", test_fraction=0.25)
    assert by_name.spec.class_names == ("cat", "dog", "owl")


def test_pictures_of_a_run_in_the_folder_of_a_class_are_no_images(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = image_folder(photos).fingerprint
    for part, run in (("train", "outputs/image_folder-linear/now"), ("val", "now")):
        folder = photos / part / "cat" / run
        (folder / ".hydra").mkdir(parents=True)
        save_image(NOISE, folder / "figures" / "1.png")
    data = image_folder(photos)
    assert data.fingerprint == before
    assert "glimpse writes there: train/cat/outputs/image_folder-linear/now, val/cat/now" in (
        data.describe()
    )


def test_images_that_a_run_of_another_program_made_are_read(photos: Path) -> None:
    before = image_folder(photos).fingerprint
    (photos / ".hydra").mkdir()  # the root itself is such a run folder
    assert image_folder(photos).fingerprint == before
    assert len(image_files([photos]).files) == len(listing(photos).names) > 0


def test_a_folder_with_nothing_but_runs_has_no_images_to_predict(tmp_path: Path) -> None:
    (tmp_path / "now" / ".hydra").mkdir(parents=True)
    save_image(NOISE, tmp_path / "now" / "curves.png")
    with pytest.raises(UserError, match="no image file in this folder; 1 folder of runs skipped"):
        image_files([tmp_path])


def test_a_run_in_place_of_a_class_is_named(photos: Path) -> None:
    (photos / "train" / "cat" / ".hydra").mkdir()
    said = error_of(photos)
    assert f"{photos}/train/cat is the folder of a run, expected that of a class: move it" in said


def test_a_split_in_which_runs_lie_beside_the_classes_is_not_skipped(photos: Path) -> None:
    (photos / "train" / "outputs" / "now" / ".hydra").mkdir(parents=True)
    said = error_of(photos)
    assert "train/outputs: the class outputs has no images here" in said
    assert f"move the folder out of {photos}/train" in said


def test_pictures_of_runs_are_no_nested_classes(photos: Path) -> None:
    for number in range(2):
        folder = photos / "train" / "cat" / "outputs" / f"run{number}"
        (folder / ".hydra").mkdir(parents=True)
        save_image(NOISE, folder / "curves.png")
    assert "the classes are the folders" not in image_folder(photos).describe()


def test_an_unused_validation_folder_is_told(photos: Path) -> None:
    shutil.copytree(photos / "val", photos / "test")
    data = image_folder(photos, val_fraction=0.25)
    assert sizes(data) == {"train": 9, "val": 3, "test": 6}
    assert "6 of the official validation set unused (data.val_fraction=0" in data.describe()
    assert "unused" not in image_folder(photos).describe()


# Classes from paths -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", [r"([^/]+)_\d+\.png$", r"^\w+/(?P<label>\w+)/", r"/(?P<label>[a-z]+)_(\d+)\.png"]
)
def test_classes_from_paths_of_any_depth(photos: Path, pattern: str) -> None:
    (photos / "train" / "owl" / "more").mkdir()
    path = photos / "train" / "owl" / "owl_1.png"
    path.rename(photos / "train" / "owl" / "more" / "owl_77.png")
    (photos / "train" / "._cat_9.png").write_bytes(b"hidden")
    data = image_folder(photos, pattern=pattern, test_fraction=1 / 3)
    assert data.spec.class_names == ("cat", "dog", "owl")
    assert sizes(data) == {"train": 12, "val": 6}
    for split in ("train", "val"):
        for batch in data.batches.loader(split):
            brightness = batch.images.float().mean((1, 2, 3))
            assert ((brightness - 40) / 175 * 3).round().tolist() == batch.labels.tolist()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            r"cat_(\d)",
            "finds no class in 12 of 18 images below {root}, for example train/dog/dog_0.png",
        ),
        (r"(.*)_\d\.jpg", "finds no class in 18 of 18 images"),
        (r"(\w)?_\d\d", "finds no class in 18 of 18"),
        (r"(png)$", "finds only one class, png"),
        (r"(.*", "missing )"),
        (r".*", "expected one group in parentheses"),
        (r"(.)(.)", "expected one group in parentheses"),
    ],
)
def test_an_expression_that_does_not_fit(photos: Path, pattern: str, message: str) -> None:
    found = error_of(photos, pattern=pattern)
    assert found.startswith(f"data.pattern={pattern}")
    assert message.format(root=photos) in found


def test_another_expression_makes_other_data(photos: Path) -> None:
    patterns = (r"(\w+)_\d\.png", r"(\w)\w+_\d\.png")
    data = [image_folder(photos, pattern=pattern) for pattern in patterns]
    assert [d.spec.class_names for d in data] == [("cat", "dog", "owl"), ("c", "d", "o")]
    assert data[0].fingerprint != data[1].fingerprint


def test_linked_class_folders(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    for part in ("train", "val"):
        (tmp_path / "linked" / part).symlink_to(photos / part)
    assert sizes(image_folder(tmp_path / "linked")) == {"train": 12, "val": 6}


def test_an_archive_is_unpacked_from_a_url(photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w") as tarred:
        tarred.add(photos, "photos")
    data = image_folder(
        tmp_path / "new" / "photos",
        data_dir=str(tmp_path / "new"),
        url=archive.as_uri(),
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
    )
    assert sizes(data) == {"train": 12, "val": 6}


@pytest.mark.parametrize("is_empty", [False, True])
def test_an_archive_without_its_top_folder_is_unpacked_into_the_root(
    photos: Path, tmp_path: Path, is_empty: bool
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", photos / "train"))
    new = tmp_path / "new"
    if is_empty:
        (new / "pics").mkdir(parents=True)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    options = {"url": archive.as_uri(), "sha256": sha256, "data_dir": str(new)}
    data = image_folder(new / "pics", test_fraction=0.25, **options)
    assert data.spec.class_names == ("cat", "dog", "owl")
    assert [path.name for path in new.iterdir() if path.name[0] != "."] == ["pics"]


def test_an_empty_root_makes_room_for_the_folder_of_an_archive(
    photos: Path, tmp_path: Path
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path, "photos"))
    (tmp_path / "new" / "photos").mkdir(parents=True)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    options = {"url": archive.as_uri(), "sha256": sha256, "data_dir": str(tmp_path / "new")}
    assert sizes(image_folder(tmp_path / "new" / "photos", **options)) == {"train": 12, "val": 6}


def test_an_archive_with_another_top_folder_names_it(photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w") as tarred:
        tarred.add(photos, "my photos")
    new = tmp_path / "new"
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    message = error_of(new / "photos", data_dir=str(new), url=archive.as_uri(), sha256=sha256)
    assert f'did you mean "data.root={new}/photos/my photos"?' in message


# Folders as people have them --------------------------------------------------------------------


def test_test_images_never_choose_and_validation_is_cut_from_training(photos: Path) -> None:
    (photos / "val").rename(photos / "test")
    data = image_folder(photos, test_fraction=0.25)
    assert sizes(data) == {"train": 9, "val": 3, "test": 6}
    assert (data.splits["val"].part, data.splits["test"].part) == ("train", "test")


def test_what_programs_leave_is_passed_over_everywhere(photos: Path) -> None:
    before = sizes(image_folder(photos))
    for name in ("__MACOSX/cat/a.png", "train/@eaDir/a.png", "train/cat/.thumbs/a.png", "train/.x/a.png",
                 "train/cat/._cat_0.png", "val/dog/lost+found/a.png", "$RECYCLE.BIN/a/b.png"):  # fmt: skip
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"\0\5\x16\7")
    assert sizes(image_folder(photos)) == before
    given = image_files([photos])
    files, remarks = given.files, given.remarks
    assert (len(files), remarks) == (18, [])


@pytest.mark.parametrize("ending", [".jfif", ".avif", ".JPEG", ".webp", ".tiff", ".pbm"])
def test_other_endings_are_read(photos: Path, ending: str) -> None:
    pixels = np.full((20, 24, 3), 40, np.uint8)
    save_image(pixels, photos / "train" / "cat" / f"new{ending}")
    assert sizes(image_folder(photos)) == {"train": 13, "val": 6}
    assert len(image_files([photos]).files) == 19


def test_what_lies_beside_the_classes_is_counted(photos: Path) -> None:
    before = sizes(image_folder(photos))
    for place in (photos / "loose.png", photos / "val" / "a.jpg", photos / "val" / "b.jpg"):
        save_image(np.zeros((20, 24, 3), np.uint8), place)
    for name in ("val/owl.zip", "train/cat/b.zip", "train/cat/live.MOV"):
        (photos / name).write_bytes(b"x")
    data = image_folder(photos)
    assert sizes(data) == before
    told = data.describe()
    assert f"1 image in {photos} skipped, because not in a class folder" in told
    assert f"2 images in {photos / 'val'} skipped" in told
    assert "2 .zip files skipped (unpack them if they hold images)" in told
    assert "1 .mov file skipped" in told
    shutil.rmtree(photos / "train")
    shutil.rmtree(photos / "val")
    (photos / "loose.png").rename(photos / "cats.zip")
    assert "no images found; 1 .zip file skipped (unpack them" in error_of(photos)


def test_formats_that_cannot_be_read_are_counted(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train/cat/a.HEIC", "train/dog/b.heic", "val/cat/c.svg"):
        (photos / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(UserError, match=r"a\.HEIC"):  # pillow-heif finds no picture in it
        image_folder(photos)
    monkeypatch.setattr(formats, "can_read_heif", lambda: False)
    for cached in (formats.readable_endings, formats.unreadable_endings):
        cached.cache_clear()
    try:
        told = image_folder(photos).describe()
        assert "2 .heic files skipped (to read them, type pip install pillow-heif)" in told
        assert "1 .svg file skipped" in told
        assert len(image_files([photos]).remarks) == 2
    finally:
        monkeypatch.undo()
        for cached in (formats.readable_endings, formats.unreadable_endings):
            cached.cache_clear()


def test_heic_is_read_whatever_its_name(photos: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    picture = Image.fromarray(np.full((20, 24, 3), 40, np.uint8))
    for name in ("a.heic", "b.jpg"):
        heif.from_pillow(picture).save(photos / "train" / "cat" / name, format="HEIF")
    data = image_folder(photos)
    assert sizes(data)["train"] == 14
    assert abs(int(data.part("train").images[0].mean()) - 40) < 6


def test_a_class_of_one_image_is_trained_on_and_that_is_said(photos: Path) -> None:
    for number in (1, 2, 3):
        (photos / "train" / "owl" / f"owl_{number}.png").unlink()
    data = image_folder(photos / "train", test_fraction=0.25, val_fraction=0.25)
    assert "classes with too few images to be in every held-out set: owl" in data.describe()
    assert data.labels("train").tolist().count(2) == 1


def test_one_class_is_named(photos: Path) -> None:
    shutil.rmtree(photos / "train" / "cat")
    shutil.rmtree(photos / "train" / "dog")
    for root in (photos, photos / "train"):
        assert "found one class, owl, where two are needed" in error_of(root)


def test_an_empty_class_of_validation_is_named_and_nothing_is_to_be_deleted(photos: Path) -> None:
    for path in (photos / "val" / "dog").iterdir():
        path.unlink()
    message = error_of(photos)
    assert str(photos / "val" / "dog") in message
    assert "delete" not in message


def test_nested_folders_are_told(photos: Path) -> None:
    for name in ("animals/cat", "animals/dog", "things/owl"):
        shutil.copytree(photos / "train" / name[-3:], photos / "nested" / name)
    told = image_folder(photos / "nested", test_fraction=0.25).describe()
    assert "the classes are the folders animals, things" in told
    pattern = re.findall(r"data\.pattern='(.*)'", told)[0]
    inner = image_folder(photos / "nested", pattern=pattern, test_fraction=0.25)
    assert inner.spec.class_names == ("cat", "dog", "owl")


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to a device", "broken link", "folder"])
@pytest.mark.parametrize("cache", [True, False])
def test_what_is_no_file_is_named_and_nothing_waits(photos: Path, kind: str, cache: bool) -> None:
    odd = photos / "train" / "cat" / "aa.png"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(os.path.relpath(odd))
    elif kind == "folder":
        odd.mkdir()  # a folder may have any name
        assert sizes(image_folder(photos, cache=cache))["train"] == 12
        return
    else:
        odd.symlink_to("/dev/zero" if kind == "link to a device" else "nowhere")
    with pytest.raises(UserError, match=r"aa\.png"):
        _ = image_folder(photos, cache=cache).fingerprint


def test_a_link_to_nowhere_is_left_out_where_asked(photos: Path) -> None:
    link = photos / "train" / "cat" / "aa.png"
    link.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"aa\.png is a link to nowhere, .*data\.on_bad_file=skip"):
        image_folder(photos)
    data = image_folder(photos, on_bad_file="skip")
    assert sizes(data) == {"train": 12, "val": 6}
    assert "1 unreadable file skipped" in data.describe()


def test_images_without_an_ending_are_counted(photos: Path) -> None:
    cat = photos / "train" / "cat"
    (cat / "LICENSE").write_text("free")
    shutil.copy(cat / "cat_0.png", cat / "00a1f3")
    (cat / "meow.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt ")
    data = image_folder(photos)
    assert sizes(data)["train"] == 12
    assert ".wav" not in data.describe()
    (cat / "drawing").write_bytes(b"RIFF\x24\0\0\0WEBPVP8 ")
    data = image_folder(photos)
    assert "2 image files without an ending skipped (rename them" in data.describe()


def test_images_with_an_odd_ending_and_without_one_are_counted_together(photos: Path) -> None:
    cat = photos / "train" / "cat"
    shutil.copy(cat / "cat_0.png", cat / "one.jpg_large")
    shutil.copy(cat / "cat_0.png", cat / "other")
    said = image_folder(photos).describe()
    assert "2 image files with the ending .jpg_large or without an ending skipped" in said


def test_names_that_are_not_utf_8(photos: Path) -> None:
    odd = os.fsencode(photos / "train" / "cat") + b"/caf\xe9.png"
    shutil.copy(photos / "train" / "cat" / "cat_0.png", odd)
    folder = os.fsencode(photos / "train") + b"/\xe9t\xe9"
    shutil.copytree(os.fsencode(photos / "train" / "owl"), folder)
    data = image_folder(photos, on_bad_file="skip")
    assert data.spec.class_names == ("cat", "dog", "owl", r"\xe9t\xe9")
    assert sizes(data)["train"] == 17
    for name in names_of(data, "train"):
        name.encode()
    json.dumps(asdict(gather_facts(data)), ensure_ascii=False).encode()


# Classes of the validation folder ---------------------------------------------------------------


def test_a_validation_folder_that_lacks_a_class_keeps_the_order_of_training(photos: Path) -> None:
    shutil.rmtree(photos / "val" / "cat")
    data = image_folder(photos)
    assert data.spec.class_names == ("cat", "dog", "owl")
    assert data.labels("val").tolist() == [1, 1, 2, 2]


def test_a_validation_folder_with_an_unknown_class(photos: Path) -> None:
    (photos / "val" / "owl").rename(photos / "val" / "eagle")
    message = error_of(photos)
    assert "eagle is not a class of the training set (cat, dog, owl)" in message
    assert str(photos / "val" / "eagle") in message


# What is wrong with the folder ------------------------------------------------------------------


def test_an_empty_class_folder_is_named(photos: Path) -> None:
    (photos / "train" / "emu").mkdir()
    assert "the class emu has no images" in error_of(photos)


def test_no_such_folder(photos: Path) -> None:
    root = photos.parent / "fotos"
    found = error_of(root)
    assert found == f"data.root={root}: no such folder: did you mean {photos}?"


def test_a_folder_without_images(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.rename(path.with_suffix(".txt"))
    assert f"no images found; expected {photos}/<class>/*.jpg" in error_of(photos)


@pytest.mark.parametrize("neighbours", [[], ["data"], ["data", "films/train/cat"]])
def test_a_root_one_level_too_high(photos: Path, neighbours: list[str]) -> None:
    root = photos.parent / "root"
    for neighbour in neighbours:
        (root / neighbour).mkdir(parents=True)
    root.mkdir(exist_ok=True)
    photos = photos.rename(root / "a_photos")
    message = error_of(root)
    assert "expected two or more class folders" in message
    assert "found a_photos" in message
    assert f"did you mean data.root={photos}?" in message


def test_an_undivided_root_one_level_too_high(photos: Path) -> None:
    shutil.rmtree(photos / "val")
    (photos / "train").rename(photos / "all")
    message = error_of(photos)
    assert "found all" in message
    assert f"did you mean data.root={photos / 'all'}?" in message


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_root_one_level_too_low(photos: Path, part: str) -> None:
    message = error_of(photos / part / "cat")
    assert "expected two or more class folders" in message
    assert "found cat_0.png" in message
    [meant] = re.findall(r"did you mean data\.root=(\S+)\?", message)
    assert (
        image_folder(Path(meant), test_fraction=0.5).spec.num_classes == 3
    )  # what it says to type works


@pytest.mark.parametrize(
    ("table", "remedy"),
    [
        ("train/labels.csv", "type data=csv data.train={root}/train/labels.csv"),
        ("labels.csv", "type data=csv data.train={root}/labels.csv data.folder=train"),
        ("train/metadata.jsonl", "type data=huggingface data.name={root}"),
        ("../labels.csv", "type data=csv data.train={parent}/labels.csv data.folder=photos/train"),
    ],
)
def test_images_whose_labels_are_in_a_table(photos: Path, table: str, remedy: str) -> None:
    shutil.rmtree(photos / "val")
    for image in (photos / "train").glob("*/*.png"):
        image.rename(photos / "train" / image.name)
    for folder in ("cat", "dog", "owl"):
        (photos / "train" / folder).rmdir()
    (photos / table).write_text("file_name,label\n")
    for name in ("sample_submission.csv", "a_test.csv", "zzz.csv")[: 3 if "train" in table else 2]:
        (photos / table).with_name(name).write_text("file_name,label\n")
    assert remedy.format(root=photos, parent=photos.parent) in error_of(photos)


def test_the_table_of_the_usual_layout_of_kaggle(photos: Path) -> None:
    root = photos / "cassava"
    for folder in ("train_images", "test_images"):
        save_image(NOISE, root / folder / "1.jpg")
    for name in ("sample_submission.csv", "labels.csv", "train.csv"):
        (root / name).write_text("image_id,label\n1,0\n")
    for given in (root, root / "train_images"):
        assert f"data=csv data.train={root}/train.csv data.folder=train_images" in error_of(given)
    for folder in ("train_images", "test_images"):
        shutil.rmtree(root / folder)
    save_image(NOISE, root / "images" / "1.jpg")
    message = error_of(root)
    assert "found one class, images" in message
    assert f"type data=csv data.train={root}/train.csv data.folder=images, or add" in message


def test_no_training_folder_beside_the_others(photos: Path) -> None:
    (photos / "train").rename(photos / "test")
    assert "expected train/ beside test, val" in error_of(photos)


def test_images_of_two_sizes(photos: Path) -> None:
    save_image(np.zeros((30, 30, 3), np.uint8), photos / "train" / "owl" / "large.png")
    assert "data.presize=64" in error_of(photos)
    spec = image_folder(photos, presize=16).spec
    assert (spec.height, spec.width) == (16, 16)


def test_images_stored_smaller_than_the_input_are_said(photos: Path) -> None:
    said = "stored at 8×6 pixels, and enlarged to 16×12 by data.size"  # width first, as elsewhere
    assert said in image_folder(photos, presize=[6, 8], size=[12, 16]).describe()
    for options in ({"presize": 16, "size": 8}, {"presize": 16}, {"presize": 16, "size": 16}):
        assert "enlarged" not in image_folder(photos, **options).describe()


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_file_that_is_no_image_is_named(photos: Path, part: str, cache: bool) -> None:
    broken = photos / part / "dog" / "dog_1.png"
    broken.write_text("<html>gone</html>")
    with pytest.raises(UserError, match=re.escape(str(broken))):
        list(image_folder(photos, cache=cache).batches.loader(part))


def test_unlabelled_images_beside_the_training_folders_are_named(photos: Path) -> None:
    shutil.rmtree(photos / "val")
    save_image(np.zeros((20, 24, 3), np.uint8), photos / "val" / "unknown.png")
    message = error_of(photos)
    assert str(photos / "val") in message
    assert "no class folders found, expected one for each class" in message


@pytest.mark.parametrize("keep", [20, 60, 200])
@pytest.mark.parametrize("cache", [True, False])
def test_a_photo_cut_off_anywhere_is_named(photos: Path, keep: int, cache: bool) -> None:
    path = photos / "train" / "dog" / "cut.png"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    save_image(pixels, path)
    path.write_bytes(path.read_bytes()[:keep])

    def read_all() -> None:
        list(image_folder(photos, cache=cache).batches.loader("train"))

    with pytest.raises(UserError) as error:
        read_all()
    assert str(path) in str(error.value)
    assert "cannot read" in str(error.value) or "not an image" in str(error.value)


def test_accents_as_macs_write_them_are_the_same_class(tmp_path: Path) -> None:
    for part, name in (("train", "cafe\u0301"), ("train", "b"), ("val", "caf\u00e9"), ("val", "b")):
        for number in range(4):
            save_image(
                np.full((4, 4, 3), number, np.uint8), tmp_path / part / name / f"{number}.png"
            )
    data = image_folder(tmp_path)
    assert data.spec.class_names == ("b", "caf\u00e9")
    assert sizes(data) == {"train": 8, "val": 8}
    save_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "train" / "caf\u00e9" / "0.png")
    assert "two classes are called caf\u00e9" in error_of(tmp_path)


def test_names_that_differ_in_capitals_are_said(tmp_path: Path) -> None:
    for name in ("Cat", "cat", "dog"):
        for number in range(5):
            save_image(np.full((4, 4, 3), number, np.uint8), tmp_path / name / f"{number}.png")
    said = image_folder(tmp_path).describe()
    assert "the classes Cat and cat differ only in spelling" in said


NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.mark.parametrize("pattern", ["{c}.{n}.jpg", "{c}_{n}.jpg", "{c} ({n}).jpg"])
@pytest.mark.parametrize("others", ["test1", "test_a"])
def test_classes_in_the_names_of_files_beside_a_test_folder(
    tmp_path: Path, pattern: str, others: str
) -> None:
    """The folders are splits, not classes, and the pattern that is suggested works."""
    for n in range(4):
        for c in ("cat", "dog"):
            save_image(NOISE, tmp_path / "set" / "train" / pattern.format(c=c, n=n))
        save_image(NOISE, tmp_path / "set" / others / f"{n}.jpg")
    for root in (tmp_path / "set", tmp_path / "set" / "train"):
        typed = shlex.split(error_of(root).split("are the classes cat, dog? type ")[1])
        assert typed[0] == f"data.root={tmp_path / 'set' / 'train'}"
        data = image_folder(
            tmp_path / "set" / "train",
            pattern=typed[1].removeprefix("data.pattern="),
            presize=16,
            test_fraction=0.25,
        )
        assert data.spec.class_names == ("cat", "dog")
        assert sizes(data) == {"train": 6, "val": 2}


def test_loose_images_that_show_no_class(tmp_path: Path) -> None:
    root = tmp_path / "set"  # other tests' folders lie beside tmp_path, and would be named
    for part in ("training_images", "validation_images"):
        for n in range(4):
            save_image(NOISE, root / part / f"{n}.jpg")
    message = error_of(root)
    assert f"sort the images into {root / 'training_images'}/<class>/" in message
    assert "did you mean" not in message


def test_splits_within_each_class(tmp_path: Path) -> None:
    for c in ("cat", "dog"):
        for part in ("test", "train"):
            for n in range(3):
                save_image(NOISE, tmp_path / c / part / f"{n}.png")
    message = error_of(tmp_path)
    assert "test, train are in the folder of each class" in message
    data = image_folder(tmp_path, pattern="^([^/]+)/", presize=8)
    assert data.spec.class_names == ("cat", "dog")


def test_images_with_endings_of_other_files_are_counted(photos: Path) -> None:
    cat = photos / "train" / "cat"
    for name in ("a.jpg_large", "b.00", "c.01", "d.02", "e.bin"):
        shutil.copy(cat / "cat_0.png", cat / name)
    (cat / "f.bin").write_bytes(b"no image")
    (cat / "g.mat").write_bytes(b"matlab")
    described = image_folder(photos).describe()
    assert "5 image files with the ending .00, .01, .02 … skipped (rename them" in described
    assert "1 .mat file skipped" in described
    for path in cat.glob("*.png"):
        path.rename(path.with_suffix(".img"))
    assert "no images here, expected one or more; 1 .mat file skipped" in error_of(photos)


def test_colour_in_the_validation_images_alone_is_kept(tmp_path: Path) -> None:
    for c in ("cat", "dog"):
        for n in range(3):
            save_image(NOISE[..., :1], tmp_path / "train" / c / f"{n}.png")
            save_image(NOISE, tmp_path / "val" / c / f"{n}.png")
    assert image_folder(tmp_path).spec.channels == 3


def test_folders_that_share_no_class_are_classes(tmp_path: Path) -> None:
    """Their names contain the words train and test, but they are not splits."""
    for name, inner in (("toy train", "ab"), ("crash test", "cd")):
        for sub in inner:
            for n in range(4):
                save_image(NOISE, tmp_path / name / sub / f"{n}.png")
    assert image_folder(tmp_path).spec.class_names == ("crash test", "toy train")
    for name in ("toy train", "crash test"):
        save_image(NOISE, tmp_path / name / "same" / "0.png")
        save_image(NOISE, tmp_path / name / "same" / "1.png")
    assert "c is not a class of the training set" in error_of(tmp_path)
