"""The first layer whitens the patches of the images that it has looked at."""

import pytest
import torch
import torch.nn.functional as F

from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.models.whitened_net import WhitenedNet

SPEC = ImageSpec(4, tuple("abcd"), 3, 16, 16, (0.0,) * 3, (1.0,) * 3)


def images() -> torch.Tensor:
    """Smooth colour fields: neighbouring pixels and channels are alike, as in photos."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(200, 1, 5, 5, generator=generator)
    tint = 0.2 * torch.randn(200, 3, 5, 5, generator=generator)
    return F.interpolate(coarse + tint, (16, 16), mode="bicubic")


@pytest.mark.parametrize(("patch", "stride"), [(2, 1), (3, 2)])
def test_its_answers_have_variance_one_and_no_correlation(patch: int, stride: int) -> None:
    torch.manual_seed(0)
    network = WhitenedNet(SPEC, widths=[64, 64], patch=patch, stride=stride)
    network.look_at(images())
    answers = F.conv2d(images(), network.whiten.weight, stride=stride)  # without the padding
    answers = answers.transpose(0, 1).flatten(1)  # (2·half, M)
    half = len(answers) // 2
    assert half == 3 * patch**2
    torch.testing.assert_close(answers[:half], -answers[half:])
    covariance = torch.cov(answers[:half])
    large = covariance.diag() > 0.9  # directions that the images hardly have stay small
    assert large.sum() >= half // 2
    assert covariance.diag().max() < 1.05
    off_diagonal = covariance - torch.diag(covariance.diag())
    assert off_diagonal.abs().max() < 0.05


def test_eps_keeps_directions_of_little_variance_faint() -> None:
    for eps, largest in ((1e-4, 100), (0.25, 2)):
        network = WhitenedNet(SPEC, patch=3, stride=2, eps=eps)
        network.look_at(images())
        amplified = network.whiten.weight.flatten(1).norm(dim=1).max().item()
        assert 0.9 * largest < amplified <= 1.001 * largest  # 1 / sqrt(eps)


def test_patches_of_three_halve_a_side_to_its_border() -> None:
    assert WhitenedNet(SPEC, patch=3, stride=2).whiten(images()[:1]).shape[2:] == (8, 8)
    assert WhitenedNet(SPEC).whiten(images()[:1]).shape[2:] == (15, 15)


def test_the_first_layer_and_gains_are_not_trained() -> None:
    network = WhitenedNet(SPEC)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert "whiten.weight" in frozen
    assert {name for name in frozen if name != "whiten.weight"} == {
        f"blocks.{block}.{norm}.weight" for block in range(3) for norm in (2, 5)
    }


def test_deep_blocks_add_their_branch_to_what_it_read() -> None:
    network = WhitenedNet(SPEC, depth=3).eval()
    block = network.blocks[0]
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in block.modules()) == 3
    features = torch.randn(2, 2 * 3 * 2**2, 8, 8)
    read = block[:4](features)
    written = read
    for layer in block[4]:
        written = layer(written)
    torch.testing.assert_close(block(features), F.gelu(read + written))
    branch = [layer for layer in block[4] if isinstance(layer, torch.nn.Conv2d)]
    torch.nn.init.zeros_(branch[-1].weight)
    torch.testing.assert_close(block(features), F.gelu(read))


def test_blocks_without_convolutions_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.depth=0: expected 1 or more"):
        WhitenedNet(SPEC, depth=0)
