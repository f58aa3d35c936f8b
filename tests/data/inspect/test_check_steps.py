"""Every dataset passes the check, which stops at a step that fails and says why."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import choices, composed, slow
from glimpse.assembly import unprepared_data
from glimpse.data.augment.base import Augmentation
from glimpse.data.inspect.check import DatasetCheck, Step
from glimpse.data.sets.digits import Digits
from glimpse.data.sets.image_folder import ImageFolder
from glimpse.data.spec import Arrays, Source
from glimpse.errors import UserError
from makers import MAKERS, make_image_folder, overrides, save_image

SAMPLE = ["listed", "opened", "sized", "decoded", "labelled", "stored"]
READ_IN_THEIR_OWN_WAY = {"csv", "digits", "image_folder", "tiny_imagenet"}  # pixels, and files
BATCH = ["gathered", "moved", "normalised", "augmented", "learned"]
COMMON: dict[str, Any] = {"seed": 0, "batch_size": 4, "val_fraction": 0.0, "num_workers": 1}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and val/ with cat, dog and owl: 4 and 2 images each, 20 high and 24 wide."""
    make_image_folder(tmp_path)
    return tmp_path / "photos"


def walk_through(root: Path, **options: Any) -> tuple[DatasetCheck, list[Step]]:
    data = ImageFolder(root=str(root), data_dir=str(root.parent), **COMMON | options)
    checked = DatasetCheck(data, device=torch.device("cpu"))
    return checked, list(checked.steps())


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize(
    ("name", "cache"),
    [(name, True) for name in choices("data")]
    + [
        (name, False) if name in READ_IN_THEIR_OWN_WAY else slow(name, False)
        for name in choices("data")
    ],
)
def test_every_dataset_is_walked_through(tmp_path: Path, name: str, cache: bool) -> None:
    if name in MAKERS:
        MAKERS[name](tmp_path, per_class=10)
    config, _ = composed(
        f"data={name}", f"data_dir={tmp_path}", f"data.cache={cache}", "data.normalize=none",
        "data.num_workers=0", "augment=flip", *overrides(name, tmp_path),
    )  # fmt: skip
    checked = DatasetCheck(unprepared_data(config), device=torch.device("cpu"))
    steps = list(checked.steps())
    assert [step.error for step in steps] == [None] * len(steps)
    assert [step.name for step in steps] == SAMPLE + BATCH
    assert list(checked.faults()) == []
    assert checked.parts


def test_steps_tell_what_they_found(photos: Path) -> None:
    _, steps = walk_through(photos)
    found = {step.name: step.found for step in steps}
    first = photos / "train" / "cat" / "cat_0.png"
    assert found["listed"] == "train 12, heldout 6 files; 3 classes"
    assert found["opened"] == f"{first}: {first.stat().st_size:,} bytes, PNG, RGB, 24×20"
    assert found["sized"] == "24×20 RGB, as in the files"
    assert found["decoded"].startswith("(20, 24, 3) uint8, ")
    assert found["labelled"] == "0, cat"
    assert found["stored"].startswith("row 0 of 12×20×24×3, identical pixels; train 12")
    assert found["gathered"].startswith("images (4, 20, 24, 3) uint8, ")
    assert found["normalised"].startswith("(4, 3, 20, 24) float32, 0 to 0.")
    assert f"loss {np.log(3):.4f}" in found["learned"]


def test_files_are_not_decoded_again_right_after_the_cache_was_made(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counting(paths: Sequence[Path], *_: Any, **__: Any) -> list[str]:
        decoded.extend(paths)
        return []

    monkeypatch.setattr("glimpse.data.inspect.check.broken_files", counting)
    (photos / "train" / "cat" / "cat_1.png").write_bytes(b"no image")
    failed, _ = walk_through(photos)
    skipping, _ = walk_through(photos, on_bad_file="skip")
    (photos / "train" / "cat" / "cat_1.png").unlink()
    new, _ = walk_through(photos)
    again, _ = walk_through(photos)
    for checked, number in ((failed, 18), (skipping, 18), (new, 0), (again, 17)):
        decoded.clear()
        assert list(checked.faults()) == []
        assert len(decoded) == number


def truncate_first(root: Path) -> None:
    os.truncate(root / "train" / "cat" / "cat_0.png", 200)


def truncate_another(root: Path) -> None:
    os.truncate(root / "train" / "owl" / "owl_3.png", 200)


def web_page(root: Path) -> None:
    (root / "train" / "cat" / "cat_0.png").write_text("<html>")


def other_size(root: Path) -> None:
    save_image(np.zeros((30, 30, 3), np.uint8), root / "train" / "dog" / "dog_2.png")


def no_images(root: Path) -> None:
    for path in (root / "train" / "dog").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "step", "reason", "num_faults"),
    [
        (truncate_first, "opened", "cat_0.png", 1),
        (web_page, "opened", "not an image", 1),
        (truncate_another, "sized", "owl_3.png", 1),
        (other_size, "sized", "expected one size: type data.presize=64", 0),
        (no_images, "listed", "the class dog has no images", 0),
    ],
)
def test_the_walk_ends_where_it_fails(
    photos: Path, damage: Callable[[Path], None], step: str, reason: str, num_faults: int
) -> None:
    damage(photos)
    checked, steps = walk_through(photos)
    assert [s.name for s in steps] == SAMPLE[: SAMPLE.index(step) + 1]
    assert [s.error is None for s in steps] == [True] * (len(steps) - 1) + [False]
    assert reason in str(steps[-1].error)
    assert len(list(checked.faults())) == num_faults


def test_a_changed_cache_is_built_anew(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walk_through(photos)
    [array] = (photos.parent / ".cache").glob("*/train.npy")
    np.save(array, np.zeros_like(np.load(array)))
    _, steps = walk_through(photos)
    assert steps[-1].name == "learned"
    assert "train.npy does not match its checksum" in capsys.readouterr().out


class Broken(Augmentation):
    num_draws = 1

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        raise RuntimeError("sizes of tensors must match")


def test_a_fault_in_an_augmentation_is_told_there(photos: Path) -> None:
    _, steps = walk_through(photos, augment=Broken())
    assert (steps[-1].name, str(steps[-1].error)) == ("augmented", "sizes of tensors must match")


def test_pixels_that_are_all_equal_cannot_be_normalised(tmp_path: Path) -> None:
    for number in range(4):
        for name in ("cat", "dog"):
            save_image(np.zeros((8, 8, 3), np.uint8), tmp_path / "black" / name / f"{number}.png")
    _, steps = walk_through(tmp_path / "black", normalize="dataset")
    assert steps[-1].name == "stored"
    assert "type data.normalize=none" in str(steps[-1].error)


def test_every_wrong_label_of_an_array_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Digits.read(Digits(data_dir="", **COMMON))
    assert isinstance(whole.train, Arrays)
    whole.train.labels[[5, 900]] = 10, -1
    monkeypatch.setattr(Digits, "read", lambda self: whole)
    checked = DatasetCheck(Digits(data_dir="", **COMMON), device=torch.device("cpu"))
    *_, last = checked.steps()
    assert last.name == "labelled"
    assert list(checked.faults()) == [
        "train[5] has the label 10, expected 0 to 9",
        "train[900] has the label -1, expected 0 to 9",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: Arrays(part.images[..., 0], part.labels), "1797×8×8 of uint8, expected N×H×W×C"),
        (lambda part: Arrays(part.images, part.labels.tolist()), "labels of the train images are a list"),
        (lambda part: Arrays(part.images.tolist(), part.labels), "the train images are a list"),
        (lambda part: Arrays(part.images, part.labels[1:]), "1,797 train images but 1,796 labels"),
    ],
)  # fmt: skip
def test_images_and_labels_of_another_form_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Arrays], message: str
) -> None:
    whole = Digits.read(Digits(data_dir="", **COMMON))
    changed = Source(whole.class_names, change(whole.train))
    monkeypatch.setattr(Digits, "read", lambda self: changed)
    checked = DatasetCheck(Digits(data_dir="", **COMMON), device=torch.device("cpu"))
    [step] = checked.steps()
    assert (step.name, type(step.error)) == ("listed", UserError)
    assert message in str(step.error)
    assert list(checked.faults()) == []
