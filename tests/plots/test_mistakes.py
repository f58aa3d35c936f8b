"""Pictures contain what they claim: which classes, which images, in which order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from glimpse.insight.confusion import confusion_matrix, most_confused
from glimpse.insight.predictions import Predictions
from glimpse.plots import mistakes


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: object, **kwargs: object) -> None:
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def texts(figure: Figure) -> list[str]:
    found = [t.get_text() for axes in figure.axes for t in axes.texts]
    return [*found, *(axes.get_title() for axes in figure.axes if axes.get_title())]


def some_predictions(num_classes: int, *, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=40 * num_classes)
    logits = torch.from_numpy(random.normal(size=(len(labels), num_classes))).float()
    logits[torch.arange(len(labels)), torch.from_numpy(labels)] += 2
    names = tuple(f"class number {i}" for i in range(num_classes))
    return Predictions("val", names, torch.log_softmax(logits, 1).numpy(), labels)


def test_a_small_matrix_shows_every_count(drawn: list[Figure], tmp_path: Path) -> None:
    matrix = np.array([[17, 2], [0, 31]])
    mistakes.draw_confusion(matrix, ("cat", "dog"), "pets", tmp_path / "c.png")
    [figure] = drawn
    assert texts(figure) == ["17", "2", "31", "pets"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["cat", "dog"]
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 300


def test_many_classes_are_cut_to_those_in_most_mistakes(
    drawn: list[Figure], tmp_path: Path
) -> None:
    matrix = np.diag(np.full(200, 50))
    matrix[150, 7] = 30
    matrix[3, 150] = 12
    names = [f"n{i}" for i in range(200)]
    mistakes.draw_confusion(matrix, names, "tiny", tmp_path / "c.png")
    [figure] = drawn
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == mistakes.NUM_CHOSEN
    assert {"n3", "n7", "n150"} <= set(labels)
    assert {"30", "12"} <= set(texts(figure))
    assert "20 of 200 classes" in figure.axes[0].get_title()


def test_examples_of_a_pair_are_its_surest_mistakes(tmp_path: Path, drawn: list[Figure]) -> None:
    predictions = some_predictions(3)
    pairs = most_confused(confusion_matrix(predictions))
    asked: list[np.ndarray] = []

    def images(positions: np.ndarray) -> torch.Tensor:
        asked.append(positions)
        return torch.rand(len(positions), 3, 8, 8)

    mistakes.draw_most_confused(predictions, pairs, images, "title", tmp_path / "m.png")
    for pair, positions in zip(pairs, asked, strict=False):
        assert (predictions.labels[positions] == pair.actual).all()
        assert (predictions.predicted[positions] == pair.predicted).all()
        assert (np.diff(predictions.confidence[positions]) <= 0).all()
    rows = [text for text in texts(drawn[0]) if "called" in text]
    assert rows[0].endswith(f"{pairs[0].num_images} images")
    assert len(rows) == min(len(pairs), mistakes.NUM_PAIRS)


def test_no_mistakes_are_said_to_be_none(tmp_path: Path, drawn: list[Figure]) -> None:
    predictions = some_predictions(2)
    mistakes.draw_most_confused(
        predictions, [], lambda _: torch.rand(0, 1, 8, 8), "t", tmp_path / "m.png"
    )
    assert "no mistakes" in [text.get_text() for text in drawn[0].texts]


def test_answers_name_both_classes_and_the_probability(tmp_path: Path, drawn: list[Figure]) -> None:
    answers = np.log(np.array([[0.9, 0.1], [0.25, 0.75]], np.float32))
    two = Predictions("val", ("cat", "a very long name of a dog"), answers, np.array([0, 0]))
    mistakes.draw_answers(
        two, np.array([1, 0]), lambda p: torch.rand(len(p), 3, 8, 8), "worst", tmp_path / "a.png"
    )
    assert texts(drawn[0])[-4:] == ["cat", "→ a very lo… 0.75", "cat", "→ cat 0.90"]


def test_letters_that_the_font_lacks_are_no_trouble(tmp_path: Path) -> None:
    """Warnings fail the tests."""
    names = ("猫", "🙂")
    mistakes.draw_confusion(np.eye(2, dtype=np.int64), names, "猫", tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").is_file()
