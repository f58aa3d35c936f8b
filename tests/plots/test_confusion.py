"""A confusion matrix shows its counts and names, and leaves nothing outside of the picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from writing import written_texts

from glimpse.plots.confusion import NUM_CHOSEN, draw_confusion
from of_matrix import of_matrix

__all__ = ["written_texts"]  # a fixture, `written`


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def test_a_small_matrix_shows_every_count(written: list[str], tmp_path: Path) -> None:
    found = of_matrix(np.array([[17, 2], [0, 31]]), ("cat", "dog"))
    draw_confusion(found, "pets", tmp_path / "c.png")
    assert written[:4] == ["pets", "17", "2", "31"]
    assert sorted(written).count("cat") == 2  # beside its row and below its column
    assert pixels(tmp_path / "c.png").shape[1] > 300


def test_long_names_that_begin_alike_stay_different(written: list[str], tmp_path: Path) -> None:
    names = ("a breed of large apples", "a breed of large pears", "a much longer name of a fruit")
    draw_confusion(of_matrix(np.eye(3), names), "fruit", tmp_path / "c.png")
    assert {"a breed …e apples", "a breed …ge pears", "a much longer nam…"} <= set(written)


def test_many_classes_are_cut_to_those_in_most_mistakes(written: list[str], tmp_path: Path) -> None:
    matrix = np.diag(np.full(200, 50))
    matrix[150, 7] = 30
    matrix[3, 150] = 12
    names = [f"n{i}" for i in range(200)]
    draw_confusion(of_matrix(matrix, names), "tiny", tmp_path / "c.png")
    assert len({text for text in written if text in names}) == NUM_CHOSEN
    assert {"n3", "n7", "n150", "30", "12"} <= set(written)
    assert any("20 of 200 classes" in text for text in written)


@pytest.mark.parametrize(
    "names",
    [("cat", "dog"), ("a very long name of a cat", "d" * 40), ("猫", "🙂"), ("$x\n", "\udcff{}")],
)
def test_names_of_any_kind_fit_into_the_picture(names: tuple[str, str], tmp_path: Path) -> None:
    """Warnings fail the tests: letters that the font lacks are no trouble."""
    path = tmp_path / "c.png"
    title = "a title that is wider than the matrix " * 2
    draw_confusion(of_matrix(np.eye(2), names), title, path)
    picture = pixels(path)
    for edge in (picture[:3], picture[-3:], picture[:, :3], picture[:, -3:]):
        assert edge.min() == 255
