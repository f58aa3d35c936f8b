"""Generated images: any shape, the same each time, and learnable."""

from typing import Any

import numpy as np
import pytest
import torch

from glimpse.data.sets.synthetic import Synthetic
from glimpse.errors import UserError


def synthetic(**options: Any) -> Synthetic:
    common: dict[str, Any] = {"data_dir": "none", "seed": 0, "batch_size": 50, "val_fraction": 0.0}
    data = Synthetic(**common | {"num_train": 200, "num_val": 100} | options)
    data.prepare_data()
    data.setup()
    return data


def arrays(data: Synthetic, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = list(data.batches.loader(split))
    images = torch.cat([b.images for b in batches]).numpy()
    return images, torch.cat([b.labels for b in batches]).numpy()


@pytest.mark.parametrize("shape", [[3, 32, 32], [1, 28, 28], [3, 9, 14], [1, 1, 1]])
def test_shape_and_numbers_are_as_asked(shape: list[int]) -> None:
    data = synthetic(shape=shape, num_classes=4, num_train=40, num_val=12)
    spec = data.spec
    assert [spec.channels, spec.height, spec.width] == shape
    assert spec.num_classes == 4
    images, labels = arrays(data, "train")
    assert images.shape == (40, shape[1], shape[2], shape[0])
    np.testing.assert_array_equal(np.bincount(labels), [10] * 4)
    assert len(data.splits["val"].rows) == 12


def test_images_depend_on_split_seed_alone() -> None:
    first = arrays(synthetic(), "train")
    for one, other in zip(first, arrays(synthetic(seed=8), "train"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (arrays(synthetic(split_seed=1), "train")[0] != first[0]).any()


def test_classes_can_be_told_apart() -> None:
    """By the nearest mean image of a class, on images that the means were not taken from."""
    data = synthetic(shape=[3, 16, 16], num_classes=5)
    images, labels = arrays(data, "train")
    means = np.stack([images[labels == label].mean(0) for label in range(5)])
    images, labels = arrays(data, "val")
    distances = ((images[:, None] - means[None]) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == labels).mean() > 0.9


def test_validation_and_test_images_are_others() -> None:
    data = synthetic(val_fraction=0.0)
    assert set(data.splits) == {"train", "val", "test"}
    val, test = arrays(data, "val")[0], arrays(data, "test")[0]
    assert val.shape == test.shape
    assert not (val == test).all((1, 2, 3)).any()


@pytest.mark.parametrize("shape", [[3, 32], [2, 32, 32], [3, 0, 32], [32, 32, 3]])
def test_an_impossible_shape_is_refused(shape: list[int]) -> None:
    with pytest.raises(UserError, match=r"data\.shape=.*expected \[C,H,W\]"):
        synthetic(shape=shape)
