"""Mixup and CutMix: an image becomes a mixture of two, and its label one of two classes.

Sources: H. Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, section 2; S. Yun et al.
2019, CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, section
3. Both papers draw one share for a batch; here each image draws its own. Its partner is the image
before it in the batch, which is shuffled.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from glimpse.data.augment.base import Draws, to_bytes
from glimpse.data.augment.cutout import rectangles
from glimpse.data.augment.flips import CropFlip


class Mixing(CropFlip):
    """CropFlip, then a mixture.

    Args:
        alpha: the share of an image is drawn from Beta(alpha, alpha): 1 is uniform, less is more
            often nearly all or nearly nothing.
        mix_p: how many of the images are mixed.
        padding_fraction: of the crop.
        p: of the flip.
    """

    def __init__(
        self, *, alpha: float, mix_p: float, padding_fraction: float = 0.125, p: float = 0.5
    ) -> None:
        super().__init__(padding_fraction=padding_fraction, p=p)
        self.alpha = alpha
        self.mix_p = mix_p

    def mixed(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) uint8 images and their labels as (B, num_classes) float32 probabilities."""
        share = beta(draws.uniform(4), self.alpha)
        [mix] = draws.uniform(1)
        share = torch.where(mix < self.mix_p, share, 1.0)
        images, share = self.blended(images, images.roll(1, 0), share, draws)
        return images, labels.roll(1, 0).lerp(labels, share[:, None])

    @abstractmethod
    def blended(
        self, images: Tensor, partners: Tensor, share: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """About a `share` (B,) of each image with the rest of its partner, and the exact share."""


class MixUp(Mixing):
    """Every pixel is the weighted mean of both images'."""

    def blended(
        self, images: Tensor, partners: Tensor, share: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        weight = share[:, None, None, None]
        return to_bytes(partners.float().lerp_(images.float(), weight)), share


class CutMix(Mixing):
    """A rectangle shows the partner; its size is drawn, and its part inside the image counts."""

    def blended(
        self, images: Tensor, partners: Tensor, share: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        inside = rectangles(images, draws.uniform(2), (1 - share).sqrt())
        return torch.where(inside, partners, images), 1 - inside.float().mean((1, 2, 3))


def beta(draws: Tensor, alpha: float) -> Tensor:
    """Numbers from Beta(alpha, alpha), exactly, from four uniform ones each: (4, B) to (B,).

    Ulrich's formula (L. Devroye 1996, Random Variate Generation in One Line of Code)
    gives Beta(alpha + 1, alpha + 1). A gamma variable of alpha is one of alpha + 1 times
    uniform^(1/alpha) (G. Marsaglia, W. W. Tsang 2000), and a beta variable the share of
    one of two gammas in their sum; in logarithms nothing underflows.
    """
    first, second, third, fourth = 1 - draws  # above 0, for the logarithms
    radius = (1 - first ** (2 / (2 * alpha + 1))).sqrt()
    larger = (1 + radius * torch.cos(2 * math.pi * second)) / 2
    return torch.sigmoid(larger.logit() + (third.log() - fourth.log()) / alpha)
