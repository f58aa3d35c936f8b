"""TrivialAugment: one random operation per image, with a strength drawn uniformly.

Source: S. G. Müller, F. Hutter 2021, TrivialAugment: Tuning-free Yet State-of-the-Art Data
Augmentation, section 3, with the "wide" space of its Table 1 (as torchvision's TrivialAugmentWide,
but rounded to the nearest integer). The 14 operations run in four passes: moving pixels, looking up
values, blending with grey, and blending with a blurred copy. Each pass processes the images that
drew one of its operations.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from glimpse.data.augment.base import Draws, looked_up, picked, to_bytes
from glimpse.data.augment.flips import CropFlip
from glimpse.data.transfer import is_queued

NUM_LEVELS = 31  # levels of strength
MAX_SHEAR = 0.99
MAX_SHIFT = 32  # pixels, for any image size
MAX_DEGREES = 135
MAX_BLEND = 0.99
MAX_BITS_LOST = 6


class Op(IntEnum):
    """The operations, ordered so that the operations of a pass are adjacent."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    COLOUR = 6
    SHARPNESS = 7
    BRIGHTNESS = 8
    CONTRAST = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTO_CONTRAST = 12
    EQUALIZE = 13


class TrivialAugment(CropFlip):
    """CropFlip, then one operation. Left out: the cutout that the paper adds on CIFAR."""

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        op, level, sign = draws.uniform(3)
        strength = (level * NUM_LEVELS).floor() / (NUM_LEVELS - 1)
        strength = torch.where(sign < 0.5, -strength, strength)
        return applied(images, (op * len(Op)).long(), strength)


def applied(images: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """Apply one operation (B,) int64 to each of the (B, C, H, W) uint8 images.

    The strength (B,) is in [-1, 1].
    """
    images = images.contiguous()  # sums over planes are faster than over interleaved channels
    passes = (
        ((op >= Op.SHEAR_X) & (op <= Op.ROTATE), _moved),
        (op == Op.COLOUR, _coloured),
        (op == Op.SHARPNESS, _sharpened),
        (op >= Op.BRIGHTNESS, _revalued),
    )
    changed = images.clone()
    for chosen, change in passes:
        if is_queued(images.device):  # finding the rows would make it wait; processing all is cheap
            changed = torch.where(chosen.view(-1, 1, 1, 1), change(images, op, strength), changed)
        elif len(rows := chosen.nonzero().squeeze(1)):
            changed.index_copy_(0, rows, change(images[rows], op[rows], strength[rows]))
    return changed


def _moved(images: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """Shear about the upper left corner, shift by whole pixels, or rotate about the centre.

    Pixels without a source are black, and each other pixel takes the value of its nearest source.
    """

    def of(chosen: Op, most: float) -> Tensor:
        return torch.where(op == chosen, strength * most, 0.0).view(-1, 1, 1)

    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    shear_x, shear_y = of(Op.SHEAR_X, MAX_SHEAR), of(Op.SHEAR_Y, MAX_SHEAR)
    shift_x, shift_y = of(Op.TRANSLATE_X, MAX_SHIFT).trunc(), of(Op.TRANSLATE_Y, MAX_SHIFT).trunc()
    angle = of(Op.ROTATE, math.radians(MAX_DEGREES))
    cos, sin = angle.cos(), angle.sin()
    columns = cos * x + ((shear_x - sin) * y + shear_x * height / 2 - shift_x + (width - 1) / 2)
    rows = (shear_y + sin) * x + (cos * y + shear_y * width / 2 - shift_y + (height - 1) / 2)
    columns, rows = columns.round().long(), rows.round().long()
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    moved = picked(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    return moved * inside[:, None]


def _coloured(images: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """Blend towards grey or away from it."""
    return _blended(images, rgb_to_grayscale(images), strength)


def _sharpened(images: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """Blend towards a blurred copy or away from it; the border stays unchanged."""
    if min(images.shape[2:]) < 3:
        return images
    values = images.float()
    rows = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    blurred = values.clone()
    blurred[..., 1:-1, 1:-1] = ((around + 4 * values[..., 1:-1, 1:-1]) / 13).round()
    return _blended(images, blurred, strength)


def _blended(images: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    factor = (1 + MAX_BLEND * strength).view(-1, 1, 1, 1)
    return to_bytes(factor * images + (1 - factor) * other)


def _revalued(images: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """Apply the operations that map each value through a table computed from the whole image."""
    factor = (1 + MAX_BLEND * strength).view(-1, 1, 1)
    level = strength.abs().view(-1, 1, 1)
    counts = _histogram(images)  # (B, C, 256)
    value = torch.arange(256, device=images.device).expand(counts.shape)
    grey = rgb_to_grayscale(images).flatten(1)
    mean = (grey.sum(1) / grey.shape[1]).view(-1, 1, 1)
    bits_lost = (level * MAX_BITS_LOST).round().long()
    tables = {
        Op.BRIGHTNESS: to_bytes(factor * value),
        Op.CONTRAST: to_bytes(factor * value + (1 - factor) * mean),
        Op.POSTERIZE: to_bytes(value >> bits_lost << bits_lost),
        Op.SOLARIZE: to_bytes(torch.where(value >= 255 * (1 - level), 255 - value, value)),
        Op.AUTO_CONTRAST: _stretching(counts, value),
        Op.EQUALIZE: _equalizing(counts, value),
    }
    choice = (op - Op.BRIGHTNESS).clamp(min=0).view(1, -1, 1, 1)
    table = torch.stack([tables[Op(i)] for i in range(Op.BRIGHTNESS, len(Op))])
    return looked_up(images, table.gather(0, choice.expand(1, *counts.shape))[0])


def _stretching(counts: Tensor, value: Tensor) -> Tensor:
    """Return tables that stretch each channel from black to white."""
    lowest, highest = _ends(counts)
    scale = 255 / (highest - lowest).clamp(min=1)
    return to_bytes(torch.where(highest > lowest, (value - lowest) * scale, value))


def _equalizing(counts: Tensor, value: Tensor) -> Tensor:
    """Return tables that make all values of each channel about equally frequent, as in PIL."""
    _, highest = _ends(counts)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, highest)) // 255
    below = counts.cumsum(2) - counts
    return to_bytes(torch.where(step > 0, (below + step // 2) // step.clamp(min=1), value))


def _ends(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value that occurs: (B, C, 1) each."""
    occurs = (counts > 0).to(torch.uint8)
    return occurs.argmax(2, keepdim=True), 255 - occurs.flip(2).argmax(2, keepdim=True)


def _histogram(images: Tensor) -> Tensor:
    """Count how often each value occurs in each channel: (B, C, 256) int64."""
    size, channels, height, width = images.shape
    values = images.reshape(size, channels, height * width).long()
    counts = torch.zeros(size, channels, 256, dtype=torch.int64, device=images.device)
    return counts.scatter_add_(2, values, torch.ones_like(values))
