"""Crop, flip, turn, zoom and warp are one homography and one interpolation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from glimpse.data.augment.base import resized
from glimpse.data.augment.presize import Presize, warped
from noise import draws_of, noise, photos

NOTHING = {"p": 0.0, "min_scale": 1.0, "p_affine": 0.0, "p_lighting": 0.0}
SIZE = (28, 36)


def places(height: int, width: int) -> tuple[Tensor, Tensor]:
    """x (1, W) and y (H, 1) of the pixels' centres, from -1 to 1."""
    x, y = ((torch.arange(n) + 0.5) * 2 / n - 1 for n in (width, height))
    return x[None], y[:, None]


def scene(x: Tensor, y: Tensor) -> Tensor:
    """A picture that is known everywhere: (…) float from 0 to 255, smooth."""
    return 127.5 + 60 * torch.sin(2 * x + 0.5) + 60 * torch.cos(3 * y - x)


def through(homography: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where one (3, 3) matrix takes these places."""
    points = torch.stack(torch.broadcast_tensors(x, y, torch.ones(()))).double()
    across, down, scale = torch.einsum("ij,jhw->ihw", homography.double(), points)
    return (across / scale).float(), (down / scale).float()


@pytest.mark.parametrize("stored", [(36, 44), (64, 64), (90, 80)])
def test_the_whole_is_one_homography_of_the_scene(stored: tuple[int, int]) -> None:
    """What is seen is the scene itself, sampled where the one matrix says."""
    augment = Presize(p_lighting=0.0)
    picture = scene(*places(*stored)).round().to(torch.uint8)
    images = picture.expand(60, 1, *stored)
    seen = augment.sized(images, SIZE, draws_of(60))
    matrices = augment.homographies(draws_of(60), SIZE[1] / SIZE[0])
    num_compared = 0
    for image, matrix in zip(seen, matrices, strict=True):
        x, y = through(matrix, *places(*SIZE))
        inside = (x.abs() < 0.95) & (y.abs() < 0.95)  # beyond, the picture is mirrored
        num_compared += int(inside.sum())
        assert (image[0].float() - scene(x, y))[inside].abs().max() < 3
    assert num_compared > 60 * 0.8 * math.prod(SIZE)


def test_the_homography_is_crop_of_warps_of_zoom_of_turn_of_flip() -> None:
    """Each part, drawn alone with the same numbers, maps places as the whole does one by one."""
    parts = {
        "crop": {"min_scale": 0.5},
        "warp": {"max_warp": 0.3, "p_affine": 1.0, "max_rotate": 0.0, "max_zoom": 1.0},
        "zoom": {"max_zoom": 1.5, "p_affine": 1.0, "max_rotate": 0.0, "max_warp": 0.0},
        "turn": {"max_rotate": 30.0, "p_affine": 1.0, "max_zoom": 1.0, "max_warp": 0.0},
        "flip": {"p": 1.0},
    }
    merged = {key: value for part in parts.values() for key, value in part.items()}
    merged |= {"max_rotate": 30.0, "max_zoom": 1.5, "max_warp": 0.3}
    whole = Presize(**(NOTHING | merged)).homographies(draws_of(), 1.5)
    product = torch.eye(3).expand(40, 3, 3)
    for part in parts.values():
        product = product @ Presize(**(NOTHING | part)).homographies(draws_of(), 1.5)
    torch.testing.assert_close(whole, product)


def test_a_rotation_keeps_distances_in_pixels() -> None:
    augment = Presize(**(NOTHING | {"p_affine": 1.0, "max_zoom": 1.0, "max_warp": 0.0}))
    pixels = torch.tensor([1.5, 1.0, 1.0])  # a place in pixels, for an image 1.5 as wide as high
    matrices = augment.homographies(draws_of(), 1.5) * pixels[:, None] / pixels
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand(40, 3, 3))
    degrees = torch.rad2deg(torch.atan2(matrices[:, 0, 1], matrices[:, 0, 0]))
    assert degrees.abs().max() <= 10
    assert degrees.min() < -8
    assert degrees.max() > 8


def test_a_crop_lies_in_the_image_with_the_area_and_shape_that_were_asked_for() -> None:
    augment = Presize(**(NOTHING | {"min_scale": 0.3}))
    matrices = augment.homographies(draws_of(2000), 1.0)
    width, height = matrices[:, 0, 0], matrices[:, 1, 1]
    assert (matrices[:, 0, 2].abs() + width).max() <= 1 + 1e-6
    assert (matrices[:, 1, 2].abs() + height).max() <= 1 + 1e-6
    area, shape = width * height, width / height
    assert 0.3 - 1e-6 <= area.min() < 0.31
    assert 0.99 < area.max() <= 1 + 1e-6
    assert 0.75 - 1e-6 <= shape.min() < 0.77
    assert 1.3 < shape.max() <= 4 / 3 + 1e-6


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", [(24, 32), (20, 24), (30, 40)])
def test_without_a_change_it_is_the_plain_resize(stored: tuple[int, int], channels: int) -> None:
    smooth = resized(photos(channels, 12, 16), stored)
    changed = Presize(**NOTHING).sized(smooth, (24, 32), draws_of(8))
    difference = (changed.int() - resized(smooth, (24, 32)).int()).abs()
    if stored == (30, 40):  # averaging over 1.25 pixels against one interpolated value
        assert difference.float().mean() < 1.5
    else:
        assert difference.max() <= 1


def test_shrinking_averages() -> None:
    """A fine pattern becomes grey, as in a plain resize, and no moiré."""
    stripes = (torch.arange(96) % 2 * 255).to(torch.uint8).expand(8, 1, 96, 96)
    changed = Presize(**NOTHING).sized(stripes, (32, 32), draws_of(8))
    assert (changed.int() - 128).abs().max() <= 43  # three places of two stripes


@pytest.mark.parametrize("size", [(32, 32), (24, 26)])
def test_interpolation_is_pils(size: tuple[int, int]) -> None:
    """The same homography as PIL's PERSPECTIVE, but for its rounding and its black outside."""
    height, width = size
    images = photos(3, 32, 32)
    matrices = Presize().homographies(draws_of(8), width / height)
    seen = warped(images, matrices, size)
    for image, after, matrix in zip(images, seen, matrices, strict=True):
        # PIL counts pixels from 0 at the corner, and passes the centres of its pixels
        from_pixels = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
        to_pixels = np.array([[16, 0, 16], [0, 16, 16], [0, 0, 1]])
        whole = to_pixels @ matrix.double().numpy() @ from_pixels
        coefficients = (whole / whole[2, 2]).flatten()[:8].tolist()
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        expected = picture.transform(
            (width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
        )
        x, y = through(matrix, *places(height, width))
        inside = (x.abs() < 0.93) & (y.abs() < 0.93)
        difference = after.int() - torch.from_numpy(np.array(expected)).permute(2, 0, 1).int()
        assert difference[:, inside].abs().max() <= 2


def test_lighting_moves_grey_and_leaves_black_and_white() -> None:
    tables = Presize(max_lighting=0.2, p_lighting=1.0).lighting(draws_of(2000))
    assert set(tables[:, 0].tolist()) == {0}
    assert set(tables[:, 255].tolist()) == {255}
    assert (tables.int().diff(dim=1) >= 0).all()
    middle = tables[:, 128]
    assert 102 <= middle.min() < 105
    assert 150 < middle.max() <= 154
    off = Presize(max_lighting=0.2, p_lighting=0.0).lighting(draws_of())
    assert torch.equal(off, torch.arange(256, dtype=torch.uint8).expand(40, 256))


def test_outside_the_image_is_its_mirror() -> None:
    images = noise(1, 1, 8, 8)
    shifted = torch.tensor([[[1.0, 0, 2 * 3 / 8], [0, 1, 0], [0, 0, 1]]])  # by three pixels
    expected = F.pad(images, (0, 3, 0, 0), "replicate")[..., 3:].clone()
    expected[..., 5:] = images[..., 5:].flip(3)
    assert torch.equal(warped(images, shifted, (8, 8)), expected)
