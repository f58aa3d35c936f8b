"""The picture of a batch: the same images on both sides, labels that fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glimpse.data.augment.flips import Flip
from glimpse.data.inspect.show import _name, draw_batch
from glimpse.data.sets.digits import Digits
from glimpse.plots.canvas import DPI
from glimpse.plots.grids import CELL, SIDE, TITLE, draw_grids

COMMON: dict[str, Any] = {"data_dir": "", "seed": 0, "batch_size": 4, "val_fraction": 0.0}


def digits(**options: Any) -> Digits:
    data = Digits(**COMMON | options)
    data.prepare_data()
    data.setup()
    return data


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def cell(picture: np.ndarray, left: float) -> np.ndarray:
    """8×8 shades of the image in the first row whose cell begins at `left` inches."""
    middle = (np.arange(8) + 0.5) / 8 * SIDE
    rows = ((TITLE + middle) * DPI).astype(int)
    columns = ((left + (CELL - SIDE) / 2 + middle) * DPI).astype(int)
    return picture[np.ix_(rows, columns)]


def test_both_halves_show_the_first_training_images(tmp_path: Path) -> None:
    path = tmp_path / "batch.png"
    data = digits(augment=Flip(p=1.0))
    batch = next(iter(data.batches.loader("train", training=True)))
    draw_batch(data, path, num_images=3)
    picture = pixels(path)
    after = 3 * CELL + CELL / 2
    for number in range(3):
        stored = batch.images[number, :, :, 0].numpy()
        np.testing.assert_allclose(cell(picture, number * CELL), stored, atol=1)
        np.testing.assert_allclose(cell(picture, after + number * CELL), stored[:, ::-1], atol=1)


@pytest.mark.parametrize(("num_channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_picture_without_colours_holds_none(tmp_path: Path, num_channels: int, mode: str) -> None:
    path = tmp_path / "grid.png"
    draw_grids({"": torch.rand(2, num_channels, 8, 8)}, {"": ["one", "two"]}, path)
    with Image.open(path) as image:
        assert image.mode == mode


def test_without_augmentation_there_is_one_half(tmp_path: Path) -> None:
    draw_batch(digits(), tmp_path / "one.png", num_images=16)
    draw_batch(digits(augment=Flip()), tmp_path / "two.png", num_images=16)
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png")
    assert len(one) == len(two)
    assert two.shape[1] > 2 * one.shape[1]


def test_a_small_training_set_is_shown_whole(tmp_path: Path) -> None:
    data = digits(test_fraction=0.9)
    draw_batch(data, tmp_path / "all.png", num_images=400)
    num_rows = -(-len(data.splits["train"].rows) // 8)
    assert len(pixels(tmp_path / "all.png")) > num_rows * SIDE * DPI


def test_as_many_images_are_shown_as_asked_whatever_sets_the_batch_size(tmp_path: Path) -> None:
    draw_batch(digits(), tmp_path / "each.png", num_images=16)
    draw_batch(digits(batch_size=99, global_batch_size=4), tmp_path / "all.png", num_images=16)
    assert pixels(tmp_path / "each.png").shape == pixels(tmp_path / "all.png").shape


def test_a_title_is_whole_above_one_image(tmp_path: Path) -> None:
    for title in ("x", "validation images with the highest loss"):
        draw_grids({title: torch.zeros(1, 1, 8, 8)}, {title: ["a"]}, tmp_path / f"{title[0]}.png")
    short, long = (pixels(tmp_path / f"{name}.png") for name in "xv")
    assert long.shape[1] > 2 * short.shape[1]
    assert long[: int(TITLE * DPI), -3:].min() == 255


@pytest.mark.parametrize("size", [(3, 20, 40), (1, 40, 20)])
def test_names_of_any_kind_stay_below_their_image(tmp_path: Path, size: tuple[int, ...]) -> None:
    labels = ["$x", "a" * 200, "", "one two three four five six seven eight nine", "b\nc"]
    draw_grids({"grey": torch.full((5, *size), 0.5)}, {"grey": labels}, tmp_path / "names.png")
    picture = pixels(tmp_path / "names.png")
    between = [picture[int(TITLE * DPI) + 5 :, int(n * CELL * DPI)] for n in range(1, 5)]
    assert all(column.min() == 255 for column in between)  # nothing reaches into the next cell


def test_mixed_images_are_called_by_their_shares() -> None:
    names = ("cat", "dog", "owl")
    assert _name(torch.tensor(1), names) == "dog"
    assert _name(torch.tensor([0.0, 1.0, 0.0]), names) == "dog"
    assert _name(torch.tensor([0.25, 0.0, 0.75]), names) == "75% owl\n25% cat"
