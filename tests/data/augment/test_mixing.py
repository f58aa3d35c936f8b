"""Mixtures of two images, and labels that say how much of each."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from glimpse.data.augment.mixing import CutMix, Mixing, MixUp, beta
from noise import draws_of, noise

SHADES = 10


def shades(size: int, height: int = 16, width: int = 20) -> tuple[Tensor, Tensor]:
    """Images of one value each, so that a mixture shows its shares, and their labels."""
    classes = torch.arange(size) % SHADES
    images = (20 * classes).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, height, width)
    return images, F.one_hot(classes, SHADES).float()


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    shares = beta(draws_of(20_000).uniform(4), alpha)
    for place in torch.linspace(0.001, 0.999, 200):
        below = (shares <= place).float().mean()
        # Kolmogorov's statistic exceeds 1.95 / √n once in a thousand draws
        assert abs(below - stats.beta(alpha, alpha).cdf(place)) < 1.95 / 20_000**0.5


@pytest.mark.parametrize("mixing", [MixUp, CutMix])
def test_pixels_and_labels_are_mixed_in_the_same_shares(mixing: type[Mixing]) -> None:
    images, labels = shades(200)
    augment = mixing(alpha=1.0, mix_p=1.0)
    mixed, shares = augment.mixed(images, labels, draws_of(200))
    assert mixed.dtype == torch.uint8
    torch.testing.assert_close(shares.sum(1), torch.ones(200))
    value = shares @ (20.0 * torch.arange(SHADES))
    torch.testing.assert_close(mixed.float().mean((1, 2, 3)), value, atol=0.51, rtol=0)
    own = shares[torch.arange(200), labels.argmax(1)]
    partner = shares[torch.arange(200), labels.roll(1, 0).argmax(1)]
    torch.testing.assert_close(own + partner, torch.ones(200))
    assert 0.4 < own.mean() < 0.7  # cutmix's rectangles are cut off at the border


def test_mixup_is_a_weighted_mean_everywhere() -> None:
    images = noise(60)
    labels = F.one_hot(torch.arange(60), 60).float()
    mixed, shares = MixUp(alpha=0.5, mix_p=1.0).mixed(images, labels, draws_of(60))
    own = shares.diagonal().view(-1, 1, 1, 1)
    expected = own * images + (1 - own) * images.roll(1, 0)
    assert (mixed - expected).abs().max() <= 0.51


def test_cutmix_shows_a_rectangle_of_the_other() -> None:
    images, labels = shades(200)
    mixed, _ = CutMix(alpha=1.0, mix_p=1.0).mixed(images, labels, draws_of(200))
    other = (mixed == images.roll(1, 0))[:, 0]
    assert torch.equal(other, ~(mixed == images)[:, 0])
    rows, columns = other.any(2), other.any(1)
    assert torch.equal(other, rows[:, :, None] & columns[:, None, :])
    for lines in (rows, columns):  # without a gap
        assert (lines.int().diff(dim=1) == 1).sum(1).max() <= 1


@pytest.mark.parametrize("mixing", [MixUp, CutMix])
def test_mix_p_says_how_many_are_mixed(mixing: type[Mixing]) -> None:
    images, labels = shades(400)
    for mix_p, least, most in ((0.0, 0, 0), (0.5, 140, 240)):
        mixed, shares = mixing(alpha=1.0, mix_p=mix_p).mixed(images, labels, draws_of(400))
        changed = (mixed != images).flatten(1).any(1)
        assert least <= changed.sum() <= most
        assert shares[~changed].amax(1).min() > 0.9  # less would change a level of 20


def test_an_image_alone_stays() -> None:
    images, labels = shades(1)
    mixed, shares = MixUp(alpha=1.0, mix_p=1.0).mixed(images, labels, draws_of(1))
    assert torch.equal(mixed, images)
    torch.testing.assert_close(shares, labels)
