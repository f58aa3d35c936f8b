"""A rectangle of each image is hidden, and nothing else."""

import pytest
import torch

from glimpse.data.augment.cutout import Cutout
from noise import draws_of, noise


@pytest.mark.parametrize("channels", [1, 3])
def test_the_hidden_part_is_one_rectangle_of_the_mean_colour(channels: int) -> None:
    images = noise(400, channels, 12, 16)
    changed = Cutout(side_fraction=0.5, padding_fraction=0, p=0)(images, draws_of(400))
    sizes = set()
    for before, after in zip(images, changed, strict=True):
        rows, columns = torch.nonzero((before != after).any(0), as_tuple=True)
        top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        hole = after[:, top:bottom, left:right].flatten(1)
        mean = before.float().mean((1, 2)).round().to(torch.uint8)
        assert torch.equal(hole, mean[:, None].expand_as(hole))
        sizes.add((int(bottom - top), int(right - left)))
    # half of each side, less where the border cuts it off
    assert max(sizes) == (6, 8)
    assert {height for height, _ in sizes} == {3, 4, 5, 6}
    assert {width for _, width in sizes} == {4, 5, 6, 7, 8}


def test_every_place_is_hidden_as_often_but_for_the_border() -> None:
    white = torch.full((4000, 1, 8, 8), 255, dtype=torch.uint8)
    white[:, :, 0, 0] = 0  # so that the mean is not white
    draws = draws_of(4000)
    hidden = (Cutout(side_fraction=0.25, padding_fraction=0, p=0)(white, draws) == 251).float()
    share = hidden.mean((0, 1))[1:-1, 1:-1]
    assert (share - 4 / 64).abs().max() < 0.016  # four standard errors
