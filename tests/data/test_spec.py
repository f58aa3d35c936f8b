"""The spec survives a checkpoint; labels that fit no class or no image are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from glimpse.data.spec import Arrays, Files, ImageSpec, Source, check_labels, check_source
from glimpse.errors import UserError


def test_spec_as_plain_data_and_back() -> None:
    spec = ImageSpec(2, ("cat", "dog"), 3, 20, 24, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert ImageSpec.from_dict(spec.as_dict()) == spec
    assert ImageSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


@pytest.mark.parametrize("label", [5, -1, -100])
def test_labels_out_of_range_are_named(label: int) -> None:
    paths = [Path(f"{number}.png") for number in range(10)]
    labels = np.where(np.arange(10) == 7, label, 0)
    with pytest.raises(UserError, match=rf"7\.png has the label {label}: expected 0 to 4"):
        check_labels(Files(paths, labels), 5, "train")
    images = np.zeros((10, 2, 2, 1), np.uint8)
    with pytest.raises(UserError, match=f"row 7 of the train images has the label {label}"):
        check_labels(Arrays(images, labels), 5, "train")


def test_paths_may_be_text_and_names_any_iterable() -> None:
    files = Files(["a.png", "b/c.png"], np.arange(2))  # type: ignore[list-item]
    assert files.paths == [Path("a.png"), Path("b/c.png")]
    source = Source((name for name in "ab"), files)  # type: ignore[arg-type]
    assert source.class_names == ("a", "b")


def test_missing_labels_are_counted() -> None:
    with pytest.raises(UserError, match="10 train images but 9 labels"):
        check_source(
            Source(("a", "b"), Arrays(np.zeros((10, 2, 2, 1), np.uint8), np.zeros(9, int)))
        )
