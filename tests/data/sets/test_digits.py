"""The digits of scikit-learn as images."""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from glimpse.data.sets.digits import Digits


def digits(tmp_path: Path) -> Digits:
    data = Digits(
        data_dir=str(tmp_path), seed=0, batch_size=64, val_fraction=0.2, test_fraction=0.2
    )
    data.prepare_data()
    data.setup()
    return data


def test_spec_and_parts(tmp_path: Path) -> None:
    data = digits(tmp_path)
    spec = data.spec
    assert (spec.channels, spec.height, spec.width) == (1, 8, 8)
    assert spec.class_names == tuple("0123456789")
    sizes = {name: len(split.rows) for name, split in data.splits.items()}
    assert sizes == {"train": 1077, "val": 360, "test": 360}


def test_ink_is_spread_over_all_of_a_byte(tmp_path: Path) -> None:
    batches = list(digits(tmp_path).batches.loader("test"))
    images = torch.cat([batch.images for batch in batches])
    assert images.dtype == torch.uint8
    assert (images.min(), images.max()) == (0, 255)
    indices = torch.cat([batch.indices for batch in batches])
    original = load_digits()
    np.testing.assert_allclose(
        images[..., 0].numpy() / 255 * 16, original.images[indices], atol=0.04
    )
    labels = torch.cat([batch.labels for batch in batches])
    np.testing.assert_array_equal(labels, original.target[indices])
