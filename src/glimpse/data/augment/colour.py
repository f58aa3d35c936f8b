"""Colour jitter: one linear map per image changes brightness, contrast, saturation and hue.

The ranges are those of torchvision's ColorJitter. Its steps are linear in the colour except for the
hue, which here rotates about the grey axis of YIQ (P. Haeberli 1993, Matrix Operations for Image
Processing) instead of around HSV's hexagon. One matrix per image therefore combines all four steps,
in a fixed order, and values are clipped to black and white only once, at the end.
"""

import math
from functools import cache

import torch
from torch import Tensor

from glimpse.data.augment.base import Draws, to_bytes
from glimpse.data.augment.flips import CropFlip
from glimpse.data.transfer import sent

LUMA = (0.299, 0.587, 0.114)  # perceived brightness of red, green and blue (ITU-R BT.601)
# Rows: luma, I and Q of the NTSC standard.
_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


class ColourJitter(CropFlip):
    """CropFlip, then colour jitter.

    The factors are drawn from [1 - x, 1 + x] for x = `brightness`, `contrast` and `saturation`, and
    the rotation of the hue from [-hue, hue] of a circle. Grey images use only brightness and
    contrast.
    """

    def __init__(
        self,
        *,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        padding_fraction: float = 0.125,
        p: float = 0.5,
    ) -> None:
        super().__init__(padding_fraction=padding_fraction, p=p)
        self.ranges = (brightness, contrast, saturation, hue)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        changes = 2 * draws.uniform(4) - 1
        brightness, contrast, saturation, hue = (
            change * reach for change, reach in zip(changes, self.ranges, strict=True)
        )
        return jittered(images, 1 + brightness, 1 + contrast, 1 + saturation, hue)


def jittered(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Jitter (B, C, H, W) uint8 images by (B,) factors and by hue rotations (B,) in circles."""
    channels, height, width = images.shape[1:]
    grey, turn = _grey_and_hue(channels, images.device)
    identity = torch.eye(channels, device=images.device)
    angle = 2 * math.pi * hue
    along, across = (saturation * part for part in (angle.cos(), angle.sin()))
    matrix = (
        grey
        + along.view(-1, 1, 1) * (identity - grey)  # scale the chroma …
        + across.view(-1, 1, 1) * turn  # … and rotate it
    ) * (brightness * contrast).view(-1, 1, 1)  # (B, C, C)
    # Contrast scales about the mean grey. The sum of integers does not depend on the order.
    mean = (images.sum((2, 3)) * grey[0]).sum(1) / (height * width)
    offset = ((1 - contrast) * brightness * mean).view(-1, 1, 1)
    planes = images.float().unbind(1)
    # Not a matrix product: a GPU may compute it in TF32, whose error is visible in 8 bits.
    changed = [
        sum(
            (matrix[:, row, column].view(-1, 1, 1) * planes[column] for column in range(channels)),
            offset,
        )
        for row in range(channels)
    ]
    return to_bytes(torch.stack(changed, 1))


@cache
def _grey_and_hue(channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return two (C, C) colour maps: to grey, and to the chroma rotated by a quarter circle."""
    if channels != 3:
        share = torch.full((channels, channels), 1 / channels, device=device)
        return share, torch.zeros_like(share)
    yiq = torch.tensor(_YIQ, dtype=torch.float64)
    quarter = torch.tensor(((0, 0, 0), (0, 0, 1), (0, -1, 0)), dtype=torch.float64)  # red to green
    turn = yiq.inverse() @ quarter @ yiq
    return sent(torch.tensor([LUMA] * 3), device), sent(turn.float(), device)
