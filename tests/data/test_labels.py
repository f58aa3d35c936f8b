"""Class names from labels, where there are many classes."""

import time
from collections.abc import Callable

import pytest

from glimpse.data.labels import class_names_of


@pytest.mark.parametrize("name", ["{0}".format, "breed {}, colour {}".format, "{}/plain".format])
def test_ten_thousand_classes_take_less_than_a_few_seconds(name: Callable[..., str]) -> None:
    labels = [name(number, number) for number in range(10_000)] * 2
    start = time.process_time()
    names = class_names_of(labels, str)
    assert time.process_time() - start < 4  # if each label were compared with all, 20 and more
    assert len(names) == 10_000
