"""A convolution as a matrix product is the same function, with the same checkpoint keys."""

import pytest
import torch
from torch import Tensor, nn

from glimpse.models.patch_conv import MAX_PIXELS, PatchConv2d


def gradients(layer: nn.Conv2d, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(images)
    outputs.float().square().sum().backward()
    found = [outputs, images.grad, *(p.grad for p in layer.parameters())]
    return [tensor.float() for tensor in found if tensor is not None]


@pytest.mark.parametrize("side", [1, 2, 4, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_a_convolution(side: int, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 8, side, side, generator=generator).bfloat16()
    layer = PatchConv2d(8, 16, bias=bias)
    plain = nn.Conv2d(8, 16, 3, padding=1, bias=bias)
    plain.load_state_dict(layer.state_dict())
    for ours, theirs in zip(gradients(layer, images), gradients(plain, images), strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() <= 0.01 * theirs.norm()  # bf16 keeps 8 bits


def test_fp32_and_large_maps_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("took the matrix product")

    monkeypatch.setattr(torch.nn.functional, "linear", refuse)
    layer = PatchConv2d(2, 4)
    layer(torch.zeros(1, 2, 2, 2))
    side = int(MAX_PIXELS**0.5) + 1
    layer.bfloat16()(torch.zeros(1, 2, side, side, dtype=torch.bfloat16))
    with pytest.raises(AssertionError, match="matrix product"):
        layer(torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16))
