"""Pictures contain what they claim: which classes, which images, in which order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import features
from writing import written_texts

from glimpse.insight.confusion import most_confused
from glimpse.insight.predictions import Predictions
from glimpse.plots import mistakes
from glimpse.plots.canvas import text_width
from glimpse.plots.grids import CELL, FONT_SIZE

__all__ = ["written_texts"]  # a fixture, `written`


def some_predictions(num_classes: int, *, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=40 * num_classes)
    logits = torch.from_numpy(random.normal(size=(len(labels), num_classes))).float()
    logits[torch.arange(len(labels)), torch.from_numpy(labels)] += 2
    names = tuple(f"class number {i}" for i in range(num_classes))
    return Predictions("val", names, torch.log_softmax(logits, 1).numpy(), labels)


def test_examples_of_a_pair_are_its_surest_mistakes(tmp_path: Path, written: list[str]) -> None:
    predictions = some_predictions(3)
    pairs = most_confused(predictions)
    asked: list[np.ndarray] = []

    def images(positions: np.ndarray) -> torch.Tensor:
        asked.append(positions)
        return torch.rand(len(positions), 3, 8, 8)

    mistakes.draw_most_confused(predictions, images, "title", tmp_path / "m.png")
    for pair, positions in zip(pairs, asked, strict=False):
        assert (predictions.labels[positions] == pair.actual).all()
        assert (predictions.predicted[positions] == pair.predicted).all()
        assert (np.diff(predictions.confidence[positions]) <= 0).all()
    rows = [number for number, text in enumerate(written) if text.startswith("called")]
    assert written[rows[0] + 1] == f"{pairs[0].num_images} images"
    assert len(rows) == min(len(pairs), mistakes.NUM_PAIRS)


def test_no_mistakes_are_said_to_be_none(tmp_path: Path, written: list[str]) -> None:
    predictions = some_predictions(2)
    right = replace(predictions, labels=predictions.predicted)
    mistakes.draw_most_confused(right, lambda _: torch.rand(0, 1, 8, 8), "t", tmp_path / "m.png")
    assert "no mistakes" in written


def test_an_answer_fits_below_its_image(tmp_path: Path, written: list[str]) -> None:
    predictions = replace(some_predictions(2), class_names=("W" * 30, "pomegranates"))
    mistakes.draw_answers(
        predictions,
        np.arange(8),
        lambda at: torch.zeros(len(at), 1, 8, 8),
        "all",
        tmp_path / "a.png",
    )
    assert all(text_width(line, size=FONT_SIZE) <= CELL for line in written[1:])
    assert all(line[-4:-2] == "0." for line in written[1:] if "→" in line)


def test_answers_name_both_classes_and_the_probability(tmp_path: Path, written: list[str]) -> None:
    answers = np.log(np.array([[0.9, 0.1], [0.25, 0.75]], np.float32))
    two = Predictions("val", ("cat", "a very long name of a dog"), answers, np.array([0, 0]))
    mistakes.draw_answers(
        two, np.array([1, 0]), lambda p: torch.rand(len(p), 3, 8, 8), "worst", tmp_path / "a.png"
    )
    name = "a very lon" if features.check("raqm") else "a very long"  # which places the letters
    assert written[-4:] == ["cat", f"→ {name}… 0.75", "cat", "✓ 0.90"]
