"""fastai's augmentation of photos: crop, flip, rotation, zoom and warp in one interpolation, then
lighting.

Source: J. Howard, S. Gugger 2020, Deep Learning for Coders, ch. 5, "Presizing", and the defaults of
fastai's `aug_transforms(min_scale=0.75)`. Images are stored somewhat larger than the network's
input (`data.presize=256 data.size=224`), so that the crop, the rotation and the warp use real
pixels. All five transformations map straight lines to straight lines, so one 3×3 matrix combines
them.

How ours differs: the crop comes before the warp and the rotation and is part of the one
interpolation, whereas fastai crops after them and interpolates twice. Each image has its own crop,
with an aspect ratio of 3/4 to 4/3 relative to the image, whereas fastai draws one square crop for a
whole batch. The vertical and the horizontal warp are composed, whereas fastai solves for the four
corners of both; the results are equal if either warp is zero. A contrast c and a brightness b
change a logit to logit·c + b, whereas fastai computes (logit + b)·c.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from glimpse.data.augment.base import Augmentation, Draws, looked_up, to_bytes

SHAPES = (3 / 4, 4 / 3)  # aspect ratios of a crop, relative to that of the image
PIXELS_FOR_A_CORE = 2 * 256**2  # pixels of stored images that a core processes at a time
_EPSILON = 1e-6  # the logits of black and white are infinite


class Presize(Augmentation):
    """Apply a random homography and a random brightness and contrast curve to each image.

    Args:
        p: Probability of a flip.
        min_scale: Minimum fraction of the image's area that a crop shows.
        max_rotate: Maximum rotation, in degrees.
        max_zoom: Maximum magnification, about a random point.
        max_warp: Maximum stretch of a side at one end, and shrinkage at the other, as a fraction of
            its length.
        p_affine: Probability of the rotation, of the zoom and of the warp in each direction.
        max_lighting: Maximum change: brightness moves mid-grey by this fraction, and contrast
            multiplies by 1 / (1 - this).
        p_lighting: Probability of a change of brightness, and of a change of contrast.
    """

    def __init__(
        self,
        *,
        p: float = 0.5,
        min_scale: float = 0.75,
        max_rotate: float = 10.0,
        max_zoom: float = 1.1,
        max_warp: float = 0.2,
        p_affine: float = 0.75,
        max_lighting: float = 0.2,
        p_lighting: float = 0.75,
    ) -> None:
        self.p = p
        self.min_scale = min_scale
        self.max_rotate = max_rotate
        self.max_zoom = max_zoom
        self.max_warp = max_warp
        self.p_affine = p_affine
        self.max_lighting = max_lighting
        self.p_lighting = p_lighting

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return self.sized(images, (images.shape[2], images.shape[3]), draws)

    def sized(self, images: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
        """Interpolate from the stored images directly to (height, width) pixels."""
        height, width = size
        whole = (images, self.homographies(draws, width / height), self.lighting(draws)[:, None])
        num_together = len(images)
        if images.device.type == "cpu":  # three times as slow if the floats exceed its caches
            each = max(1, PIXELS_FOR_A_CORE // (images.shape[2] * images.shape[3]))
            num_together = each * torch.get_num_threads()
        parts = zip(*(torch.split(tensor, num_together) for tensor in whole), strict=True)
        return torch.cat([looked_up(warped(part, h, size), tables) for part, h, tables in parts])

    def homographies(self, draws: Draws, aspect: float) -> Tensor:
        """Draw matrices (B, 3, 3) that map output coordinates to image coordinates, from -1 to 1.

        Args:
            draws: Random draws for the images.
            aspect: Width / height of the output, so that a rotation preserves angles in it.
        """
        area, shape, left, top, flip, turn, zoom, x, y, up, across = draws.uniform(11)
        one, zero = torch.ones_like(area), torch.zeros_like(area)
        # The crop has width √(area · shape) and height √(area / shape).
        area = self.min_scale + (1 - self.min_scale) * area
        lowest, highest = (
            area.clamp(min=SHAPES[0]).log(),
            area.reciprocal().clamp(max=SHAPES[1]).log(),
        )
        half = (lowest + (highest - lowest) * shape).div(2).exp()
        crop_width, crop_height = area.sqrt() * half, area.sqrt() / half
        crop = _matrix(
            (crop_width, zero, (1 - crop_width) * (2 * left - 1)),
            (zero, crop_height, (1 - crop_height) * (2 * top - 1)),
            (zero, zero, one),
        )
        # A keystone warp stretches each row at height y by 1 - up · y.
        up = _sometimes(up, self.p_affine, -self.max_warp, self.max_warp, 0.0)
        across = _sometimes(across, self.p_affine, -self.max_warp, self.max_warp, 0.0)
        vertical = _matrix((one, zero, zero), (zero, one, -up), (zero, -up, one))
        horizontal = _matrix((one, zero, -across), (zero, one, zero), (-across, zero, one))
        shown = 1 / _sometimes(zoom, self.p_affine, 1.0, self.max_zoom, 1.0)
        zoomed = _matrix(
            (shown, zero, (1 - shown) * (2 * x - 1)),
            (zero, shown, (1 - shown) * (2 * y - 1)),
            (zero, zero, one),
        )
        degrees = _sometimes(turn, self.p_affine, -self.max_rotate, self.max_rotate, 0.0)
        cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
        turned = _matrix((cos, sin / aspect, zero), (-sin * aspect, cos, zero), (zero, zero, one))
        mirror = torch.where(flip < self.p, -one, one)
        flipped = _matrix((mirror, zero, zero), (zero, one, zero), (zero, zero, one))
        whole = crop
        for part in (horizontal, vertical, zoomed, turned, flipped):
            # Not a matrix product: a GPU may compute it in TF32, with an error of part of a pixel.
            whole = (whole[:, :, :, None] * part[:, None]).sum(2)
        return whole

    def lighting(self, draws: Draws) -> Tensor:
        """Return tables (B, 256) uint8. Brightness and contrast act on the logit, so none
        overflows."""
        brightness, contrast = draws.uniform(2)
        reach = self.max_lighting
        middle = _sometimes(brightness, self.p_lighting, (1 - reach) / 2, (1 + reach) / 2, 0.5)
        limit = -math.log(1 - reach)
        factor = _sometimes(contrast, self.p_lighting, -limit, limit, 0.0).exp()
        values = torch.arange(256, device=middle.device) / 255
        logits = values.logit(_EPSILON) * factor[:, None] + middle.logit()[:, None]
        return to_bytes(255 * logits.sigmoid())


def warped(images: Tensor, homographies: Tensor, size: tuple[int, int]) -> Tensor:
    """Warp (B, C, H, W) uint8 images by (B, 3, 3) matrices to (B, C, height, width) float32.

    Values are rounded to integers from 0 to 255. The interpolation is bilinear, with mirroring
    outside the image. If the image shrinks to less than two thirds, each pixel is the mean of 2×2
    or more samples spread evenly over it.
    """
    height, width = size
    num_places = max(1, round(images.shape[2] / height), round(images.shape[3] / width))
    x = _places(width * num_places, images.device)
    y = _places(height * num_places, images.device)[:, None]
    h = homographies[:, :, :, None, None]
    # Sum the terms that depend only on the row first, for a single pass over the pixels.
    places = h[:, :, 0] * x + (h[:, :, 1] * y + h[:, :, 2])
    grid = places[:, :2].div_(places[:, 2:]).permute(0, 2, 3, 1)  # (B, height, width, 2)
    images = images.to(torch.float32, memory_format=torch.contiguous_format)  # faster to read
    seen = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return (F.avg_pool2d(seen, num_places) if num_places > 1 else seen).round_()


def _places(num: int, device: torch.device) -> Tensor:
    """Return the centres of `num` pixels between -1 and 1."""
    return (torch.arange(num, device=device) * 2 + 1) / num - 1


def _sometimes(draw: Tensor, p: float, low: float, high: float, otherwise: float) -> Tensor:
    """Return a uniform number from `low` to `high` with probability `p`, else `otherwise`.

    One draw decides both.
    """
    return torch.where(draw < p, low + (high - low) * draw / max(p, 1e-9), otherwise)


def _matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Stack nine (B,) into (B, 3, 3)."""
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
