"""Images as people hold them, one by one."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glimpse.errors import UserError
from glimpse.runs.images import one_by_one

COLOUR = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(5, 7, 3)
CHANNELS_FIRST = COLOUR.transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("images", "channels", "num"),
    [
        (COLOUR, 3, 1),
        (CHANNELS_FIRST, 3, 1),  # an array as PyTorch holds images
        (CHANNELS_FIRST, 1, 3),  # three grey images
        (np.stack([COLOUR] * 4), 3, 4),
        (np.stack([CHANNELS_FIRST] * 4), 3, 4),
        (CHANNELS_FIRST[:1], 1, 1),
        (CHANNELS_FIRST[:, None], 1, 3),
        (torch.tensor(CHANNELS_FIRST), 3, 1),
        (torch.tensor(COLOUR), 3, 1),
        (torch.tensor(CHANNELS_FIRST), 1, 3),  # as for an array
        (torch.tensor(CHANNELS_FIRST[:1]), 1, 1),
        (torch.tensor(np.concatenate([CHANNELS_FIRST] * 2)), 1, 6),
        (torch.tensor(np.stack([COLOUR] * 4)), 3, 4),
        (torch.tensor(COLOUR[None, :, :, :1]), 1, 1),
        ([Image.fromarray(COLOUR), COLOUR], 3, 2),
        ((image for image in [COLOUR] * 2), 3, 2),
        ([], 3, 0),
    ],
)
def test_arrays_of_either_order(images: Any, channels: int, num: int) -> None:
    found = list(one_by_one(images, channels=channels))
    assert len(found) == num
    for image in found:
        assert isinstance(image, Image.Image)
        assert image.size == (7, 5)
        if channels == 3:
            assert np.array_equal(np.asarray(image), COLOUR)


@pytest.mark.parametrize("images", [None, 3, {"a": COLOUR}, b"abc", np.zeros(3), COLOUR / 255])
def test_what_is_no_image_is_refused(images: Any) -> None:
    with pytest.raises(UserError, match="expected"):
        list(one_by_one(images, channels=3))
