"""Every network has the layers of its document: the parameter counts of the source."""

import pytest
import torch

from conftest import choices, composed
from glimpse.config.build import build
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.model_summary import count_parameters


def spec(channels: int, side: int, num_classes: int) -> ImageSpec:
    names = tuple(map(str, range(num_classes)))
    return ImageSpec(num_classes, names, channels, side, side, (0.0,) * channels, (1.0,) * channels)


def network(model: str, of: ImageSpec) -> torch.nn.Module:
    config, _ = composed(f"model={model}")
    module: torch.nn.Module = build("model", config.model, of)
    return module


@pytest.mark.parametrize(
    ("model", "images", "parameters"),
    [
        ("convnet", spec(3, 64, 200), 8_574_792),
        ("convnet_template", spec(1, 64, 3), 30_211),
        ("mlp", spec(3, 32, 2), 1_574_402),
        ("mlp_deep", spec(3, 32, 2), 3_737_474),
        ("linear", spec(1, 28, 26), 20_410),
        ("small_convnet", spec(1, 28, 26), 60_034),
        ("sign_convnet", spec(1, 28, 26), 71_526),
    ],
)
def test_parameters(model: str, images: ImageSpec, parameters: int) -> None:
    assert count_parameters(network(model, images)) == parameters


@pytest.mark.parametrize(
    ("model", "smallest"),
    [("convnet_template", 22), ("sign_convnet", 24), ("small_convnet", 5), ("convnet", 8)],
)
def test_smallest_size_is_right(model: str, smallest: int) -> None:
    network(model, spec(1, smallest, 3))(torch.zeros(2, 1, smallest, smallest))
    with pytest.raises(UserError, match=f"{smallest}×{smallest} or larger"):
        network(model, spec(1, smallest - 1, 3))


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 40, 24), (1, 28, 33)])
def test_logits_for_images_that_are_not_square(
    model: str, channels: int, height: int, width: int
) -> None:
    of = ImageSpec(
        7, tuple("abcdefg"), channels, height, width, (0.0,) * channels, (1.0,) * channels
    )
    assert network(model, of)(torch.rand(2, channels, height, width)).shape == (2, 7)
