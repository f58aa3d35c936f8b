"""Mixup and CutMix: an image becomes a mixture of two images, and its label a mixture of two
classes.

Sources: H. Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, section 2; S. Yun et al.
2019, CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, section
3. How ours differs: both papers draw one share per batch; here each image draws its own. An image
is mixed with the previous image in the shuffled batch.
"""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from glimpse.data.augment.base import Draws, to_bytes
from glimpse.data.augment.cutout import rectangles
from glimpse.data.augment.flips import CropFlip


class Mixing(CropFlip):
    """CropFlip, then a mixture of two images.

    Args:
        alpha: The share of an image is drawn from Beta(alpha, alpha). 1 is uniform; smaller values
            give shares close to 0 or 1 more often.
        mix_p: Probability that an image is mixed.
        padding_fraction: Maximum shift, as a fraction of each side.
        p: Probability of a flip.
    """

    mixes = True

    def __init__(
        self, *, alpha: float, mix_p: float, padding_fraction: float = 0.125, p: float = 0.5
    ) -> None:
        super().__init__(padding_fraction=padding_fraction, p=p)
        self.alpha = alpha
        self.mix_p = mix_p

    def batch(
        self, images: Tensor, labels: Tensor, size: tuple[int, int], draws: Draws, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        images = self.sized(images, size, draws)
        return self.mixed(images, as_probabilities(labels, num_classes), draws)

    def mixed(self, images: Tensor, labels: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Mix (B, C, H, W) uint8 images and (B, num_classes) float32 label probabilities."""
        share = beta(draws.uniform(4), self.alpha)
        [mix] = draws.uniform(1)
        share = torch.where(mix < self.mix_p, share, 1.0)
        images, share = self.blended(images, images.roll(1, 0), share, draws)
        return images, labels.roll(1, 0).lerp(labels, share[:, None])

    @abstractmethod
    def blended(
        self, images: Tensor, partners: Tensor, share: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Combine a `share` (B,) of each image with its partner; return images and exact shares."""


class MixUp(Mixing):
    """Each pixel is the weighted mean of the pixels of both images."""

    def blended(
        self, images: Tensor, partners: Tensor, share: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        weight = share[:, None, None, None]
        return to_bytes(partners.float().lerp_(images.float(), weight)), share


class CutMix(Mixing):
    """A rectangle of random size shows the partner; the share is computed from its visible part."""

    def blended(
        self, images: Tensor, partners: Tensor, share: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        inside = rectangles(images, draws.uniform(2), (1 - share).sqrt())
        return torch.where(inside, partners, images), 1 - inside.float().mean((1, 2, 3))


def as_probabilities(labels: Tensor, num_classes: int) -> Tensor:
    """Labels (B,) int64, or already (B, num_classes) float32, as (B, num_classes) float32."""
    return labels if labels.is_floating_point() else F.one_hot(labels, num_classes).float()


def beta(draws: Tensor, alpha: float) -> Tensor:
    """Draw exactly from Beta(alpha, alpha), with four uniform numbers for each: (4, B) to (B,).

    Ulrich's formula (L. Devroye 1996, Random Variate Generation in One Line of Code) gives
    Beta(alpha + 1, alpha + 1). A Gamma(alpha) variable is a Gamma(alpha + 1) variable times
    uniform^(1/alpha) (G. Marsaglia, W. W. Tsang 2000), and a beta variable is the share of one of
    two gamma variables in their sum. Computing with logarithms prevents underflow.
    """
    first, second, third, fourth = 1 - draws  # above 0, for the logarithms
    radius = (1 - first ** (2 / (2 * alpha + 1))).sqrt()
    larger = (1 + radius * torch.cos(2 * math.pi * second)) / 2
    return torch.sigmoid(larger.logit() + (third.log() - fourth.log()) / alpha)
