"""The curves of a run: what they show, whatever the values and whatever a notebook has set."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from writing import written_texts

from glimpse.plots.canvas import DPI
from glimpse.plots.colours import COLOURS
from glimpse.plots.epochs import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_epochs

__all__ = ["written_texts"]  # a fixture, `written`

ROWS = [
    {"epoch": str(epoch), "train/loss": str(1 / epoch), "val/loss": str(1.1 / epoch)}
    for epoch in (1, 2, 3)
]


def pixels_of(path: Path, colour: str) -> np.ndarray:
    """Where a picture has a colour: (N, 2) inches from its upper left corner."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(path) as picture:
        rows, columns = np.nonzero((np.asarray(picture.convert("RGB")) == rgb).all(2))
    return np.stack([columns, rows], 1) / DPI


def inside(places: np.ndarray) -> np.ndarray:
    """Those inside the frame of the first chart, without its legend."""
    x, y = places.T
    is_inside = (x > LEFT) & (x < WIDTH - RIGHT) & (y > TOP) & (y < HEIGHT - BOTTOM)
    return places[is_inside]


@pytest.mark.parametrize("num_epochs", [1, 2, 3])
def test_epochs_are_whole_numbers(num_epochs: int, written: list[str], tmp_path: Path) -> None:
    draw_epochs(ROWS[:num_epochs], tmp_path / "c.png")
    before = written[: written.index("epoch")]
    ticks = before[:num_epochs]
    assert ticks == [str(epoch) for epoch in range(1, num_epochs + 1)]


def test_a_curve_falls_where_its_values_do(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    draw_epochs(ROWS, path)
    train, val = (inside(pixels_of(path, colour)) for colour in COLOURS[:2])
    for curve in (train, val):
        begin, end = curve[curve[:, 0].argmin()], curve[curve[:, 0].argmax()]
        assert end[1] - begin[1] > (HEIGHT - TOP - BOTTOM) / 2
    assert val[:, 1].min() < train[:, 1].min()  # 1.1 is above 1
    assert len(val) < 0.9 * len(train)  # dashes


@pytest.mark.parametrize("values", [["1.0"], ["2", "2"], ["nan", "inf"], ["1e-30", "3e30"], ["0"]])
def test_any_values_can_be_drawn(values: list[str], tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    draw_epochs([{"epoch": str(n), "train/loss": v} for n, v in enumerate(values, 1)], path)
    assert bool(len(inside(pixels_of(path, COLOURS[0])))) == (values[0] != "nan")


def test_zeros_are_drawn_as_other_numbers(tmp_path: Path) -> None:
    draw_epochs([{"epoch": n, "train/loss": 0.0} for n in (1, 2)], tmp_path / "curves.png")
    assert len(inside(pixels_of(tmp_path / "curves.png", COLOURS[0])))


def test_each_added_metric_has_a_chart(tmp_path: Path) -> None:
    rows = [row | {"val/f1": "0.5", "val/auroc": "0.6", "val/brier": "0.1"} for row in ROWS]
    draw_epochs(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (2 * WIDTH * DPI, 3 * HEIGHT * DPI)


def test_a_notebooks_layout_changes_nothing(tmp_path: Path) -> None:
    draw_epochs(ROWS, tmp_path / "plain.png")
    with mpl.rc_context({"figure.constrained_layout.use": True}):
        draw_epochs(ROWS, tmp_path / "notebook.png")
    with (
        Image.open(tmp_path / "plain.png") as plain,
        Image.open(tmp_path / "notebook.png") as other,
    ):
        assert plain.tobytes() == other.tobytes()
