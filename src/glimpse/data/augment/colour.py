"""Colour jitter: brightness, contrast, saturation and hue of each image in one linear map.

The ranges are torchvision's ColorJitter's. Its steps are linear in the colour but for the hue, which
here turns about the grey axis of YIQ (P. Haeberli 1993, Matrix Operations for Image Processing) in
place of HSV's hexagon. So one matrix for each image does all four, in a fixed order, and cuts off at
black and white once, at the end.
"""

import math

import torch
from torch import Tensor

from glimpse.data.augment.base import Draws, to_bytes
from glimpse.data.augment.flips import CropFlip

LUMA = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)
# Rows: luma, I and Q of the NTSC standard.
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


class ColourJitter(CropFlip):
    """CropFlip, then draw factors from [1 - x, 1 + x] for x = `brightness`, `contrast` and
    `saturation`, and a turn of the hue from [-hue, hue] of a circle.

    Grey images take the first two only.
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

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        images = super().__call__(images, draws)
        changes = 2 * draws.uniform(4) - 1
        brightness, contrast, saturation, hue = (
            change * reach for change, reach in zip(changes, self.ranges, strict=True)
        )
        return jittered(images, 1 + brightness, 1 + contrast, 1 + saturation, hue)


def jittered(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """(B, C, H, W) uint8 images by three factors (B,) and a turn of the hue (B,), in circles."""
    channels, height, width = images.shape[1:]
    grey, turn = _grey_and_hue(channels, images.device)
    identity = torch.eye(channels, device=images.device)
    angle = 2 * math.pi * hue
    along, across = (saturation * part for part in (angle.cos(), angle.sin()))
    matrix = (
        grey
        + along.view(-1, 1, 1) * (identity - grey)  # what is not grey, weaker or stronger …
        + across.view(-1, 1, 1) * turn  # … and turned
    ) * (brightness * contrast).view(-1, 1, 1)  # (B, C, C)
    # Contrast moves away from the mean grey. Of whole numbers, the sum is the same in any order.
    mean = (images.sum((2, 3)) * grey[0]).sum(1) / (height * width)
    offset = ((1 - contrast) * brightness * mean).view(-1, 1, 1)
    planes = images.float().unbind(1)
    # Not a matrix product: a GPU takes one in TF32, whose error shows in 8 bits.
    changed = [
        sum(
            (matrix[:, row, column].view(-1, 1, 1) * planes[column] for column in range(channels)),
            offset,
        )
        for row in range(channels)
    ]
    return to_bytes(torch.stack(changed, 1))


def _grey_and_hue(channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two (C, C) maps of colours: to their grey, and to their chroma turned by a quarter circle."""
    if channels != 3:
        share = torch.full((channels, channels), 1 / channels, device=device)
        return share, torch.zeros_like(share)
    yiq = torch.tensor(_YIQ, dtype=torch.float64)
    quarter = torch.tensor(((0, 0, 0), (0, 0, 1), (0, -1, 0)), dtype=torch.float64)  # red to green
    turn = yiq.inverse() @ quarter @ yiq
    return torch.tensor([LUMA] * 3, device=device), turn.float().to(device)
