"""First-layer pictures and layer outputs: that they contain what they claim."""

import pytest
import torch
from torch import nn

from glimpse.data.spec import ImageSpec
from glimpse.insight.activations import grad_cam, last_maps, layer_outputs
from glimpse.insight.first_layer import first_weights, kernel_grid


def spec(channels: int, side: int) -> ImageSpec:
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return ImageSpec(3, ("a", "b", "c"), channels, side, side, zeros, ones)


def test_a_convolutions_kernels_and_a_linear_layers_pixels_are_found() -> None:
    convnet = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 36, 3))
    assert first_weights(convnet, spec(3, 8)).shape == (5, 3, 3, 3)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    weights = first_weights(linear, spec(1, 8))
    assert weights.shape == (3, 1, 8, 8)
    assert torch.equal(weights[1, 0, 2], linear[1].weight[1, 16:24])
    assert first_weights(nn.Sequential(nn.Linear(7, 3)), spec(1, 8)) is None


def test_red_is_above_and_blue_below_zero() -> None:
    weights = torch.tensor([[2.0, -1.0], [0.0, -2.0]]).view(1, 1, 2, 2)
    picture = kernel_grid(weights)
    inside = picture[:, 3:-3, 3:-3].float()  # without the gap around it
    half = inside.shape[1] // 2
    red, blue = inside[0], inside[2]
    assert (red[:half, :half] > blue[:half, :half] + 50).all()
    assert (blue[:half, half:] > red[:half, half:] + 50).all()
    assert (inside[:, half:, :half] == 255).all()
    assert (blue[half:, half:] - red[half:, half:] > blue[:half, half:] - red[:half, half:]).all()


def test_colour_kernels_are_grey_where_they_are_zero() -> None:
    weights = torch.zeros(2, 3, 3, 3)
    weights[:, 0] = 1.0
    pixel = kernel_grid(weights)[:, 5, 5]
    assert pixel.tolist() == pytest.approx([255, 128, 128], abs=1)


def test_layer_outputs_are_what_the_layers_answer() -> None:
    torch.manual_seed(0)
    first, last = nn.Conv2d(1, 4, 3), nn.Linear(4 * 9, 3)
    in_place = nn.ReLU(inplace=True)
    network = nn.Sequential(first, in_place, nn.MaxPool2d(2), nn.Flatten(), last).eval()
    image = torch.rand(1, 1, 8, 8)
    found = layer_outputs(network, image)
    assert [(f.name, tuple(f.output.shape)) for f in found] == [
        ("0", (4, 6, 6)),
        ("2", (4, 3, 3)),
        ("4", (3,)),
    ]
    assert torch.equal(found[0].output, first(image)[0].detach())
    assert torch.equal(found[-1].output, network(image)[0].detach())


class BrightCorner(nn.Module):
    """Class 1 is how bright the upper left is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 9)
            self.conv.bias.fill_(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        corner = maps[:, :, :4, :4].mean((1, 2, 3))
        return torch.stack((torch.zeros_like(corner), corner), 1)


def test_grad_cam_lights_what_speaks_for_the_class() -> None:
    image = torch.zeros(1, 1, 16, 16)
    image[..., :4, :4] = 1
    cam = grad_cam(BrightCorner().eval(), image, 1)
    assert cam.shape == (16, 16)
    assert cam[1:3, 1:3].min() > 0.8
    assert cam[8:, 8:].max() == 0
    assert grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(256, 2)).eval(), image, 1) is None


def test_grad_cam_uses_the_last_layer_that_knows_positions() -> None:
    before = nn.Conv2d(1, 4, 3)
    after = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1), nn.Flatten())
    network = nn.Sequential(before, after).eval()
    assert last_maps(network, torch.rand(1, 1, 8, 8)) is before
    assert grad_cam(after.eval(), torch.rand(1, 4, 1, 1), 1) is None


class OneActivation(nn.Module):
    """Uses the same module after a convolution and after a linear layer, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 4, 3), nn.ReLU()
        self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.relu(self.conv(images)).mean((2, 3))
        logits: torch.Tensor = self.head(self.relu(self.hidden(maps)))
        return logits


def test_grad_cam_of_a_network_that_uses_a_layer_again() -> None:
    network = OneActivation().eval()
    image = torch.rand(1, 1, 8, 8)
    assert last_maps(network, image) is network.conv
    cam = grad_cam(network, image, 1)
    assert cam is not None
    assert cam.shape == (8, 8)


class LinearOfMaps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.mix(images.permute(0, 2, 3, 1)).mean((1, 2))
        return logits


def test_a_linear_layer_of_maps_has_its_channels_first() -> None:
    [found] = layer_outputs(LinearOfMaps().eval(), torch.rand(1, 3, 4, 5))
    assert found.output.shape == (7, 4, 5)


class Residual(nn.Module):
    """Adds to its input what a convolution finds in it: nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.zeros_(self.branch.weight)
        nn.init.zeros_(self.branch.bias)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.relu(maps + self.branch(maps))


def test_grad_cam_explains_the_sum_of_a_residual_block() -> None:
    head = nn.Linear(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [1.0]]))
    pooled = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(Residual(), pooled, head).eval()
    image = torch.zeros(1, 1, 16, 16)
    image[..., :4, :4] = 1
    cam = grad_cam(network, image, 1)
    assert cam[:4, :4].min() == 1
    assert cam[6:, 6:].max() == 0
