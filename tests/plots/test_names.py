"""Names in pictures are short, and differ if the classes do."""

from functools import partial

import pytest

from glimpse.plots.canvas import fitted, text_width
from glimpse.plots.names import NAME_CHARACTERS, distinct

STAGES = [f"lung_squamous_cell_carcinoma_stage_{number}_left_lobe" for number in (1, 2, 3)]
NAMES = {
    "short": ["cat", "dog"],
    "the end is cut off": ["cat", "a very long name of a dog"],
    "they end differently": ["Norwegian_forest_cat_black", "Norwegian_forest_cat_white"],
    "they differ in the middle": [*STAGES, "lung_healthy"],
    "one begins another": ["x" * 30, "x" * 40, "x" * 41],
    "two groups end alike": [
        f"{kind}_{'of_the_same_kind_' * 2}{number}_end_of_it" for kind in "ab" for number in (1, 2)
    ],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_that_differ_look_different(names: list[str]) -> None:
    shown = distinct(names)
    assert list(shown) == names
    assert len(set(shown.values())) == len(names)
    assert all(len(text) <= NAME_CHARACTERS for text in shown.values())
    by_width = distinct(names, partial(fitted, width=0.6, size=7.5))
    assert len(set(by_width.values())) == len(names)
    assert all(text_width(text, size=7.5) <= 0.6 for text in by_width.values())


def test_what_differs_is_shown() -> None:
    assert distinct(["cat", *STAGES])[STAGES[1]] == "lung_s…2_left_lobe"
    assert distinct(["cat", "a very long name of a dog"])["cat"] == "cat"
