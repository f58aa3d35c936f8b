"""The error of a diverged training names the first place where numbers stopped being finite."""

import torch
from torch import Tensor, nn

from glimpse.nonfinite import where_not_finite


class Root(nn.Module):
    """Gives NaN where its input is negative."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


def network() -> nn.Sequential:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    return layers.append(nn.Linear(4, 2))


IMAGES = torch.rand(8, 1, 2, 2)


def test_the_layer_whose_output_is_not_finite() -> None:
    broken = network().insert(1, Root())
    assert "that of 1" in where_not_finite(broken, IMAGES - 0.5)


class Scaled(nn.Sequential):
    """Its layers' outputs are finite, but not its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1e38 * 1e38  # type: ignore[no-any-return]


def test_the_network_whose_own_output_is_not_finite() -> None:
    assert "that of the network" in where_not_finite(Scaled(*network()), IMAGES)


def test_a_weight_that_is_not_finite() -> None:
    broken = network()
    with torch.no_grad():
        broken[4].weight[0, 0] = torch.inf  # type: ignore[index]
    assert "4.weight" in where_not_finite(broken, IMAGES)


def test_images_that_are_not_finite() -> None:
    assert "images" in where_not_finite(network(), IMAGES / 0)


def test_a_loss_alone_that_is_not_finite() -> None:
    assert "but the loss is not" in where_not_finite(network(), IMAGES)


def test_nothing_changes() -> None:
    whole = network()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    draws = torch.get_rng_state()
    where_not_finite(whole, IMAGES)
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
