"""Residual networks: the paper's sizes, and the start as an identity."""

import pytest
import torch

from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.models.resnet import ResNet


def spec_of(side: int, num_classes: int) -> ImageSpec:
    return ImageSpec(
        num_classes, tuple(map(str, range(num_classes))), 3, side, side, (0,) * 3, (1,) * 3
    )


def num_parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_resnet18_of_imagenet_has_torchvisions_parameters() -> None:
    assert num_parameters(ResNet(spec_of(224, 1000), stem="large")) == 11_689_512


def test_resnet20_of_cifar_has_the_papers_size() -> None:
    network = ResNet(spec_of(32, 10), widths=(16, 32, 64), depths=(3, 3, 3))
    assert round(num_parameters(network) / 1e6, 2) == 0.27


def test_a_new_block_passes_its_input_on() -> None:
    network, images = ResNet(spec_of(8, 10), widths=(4,), depths=(1,)), torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(network.stages(images), images)


@pytest.mark.parametrize("arguments", [{"widths": (8, 16), "depths": (1,)}, {"stem": "medium"}])
def test_what_does_not_fit_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UserError, match="expected"):
        ResNet(spec_of(32, 10), **arguments)  # type: ignore[arg-type]
