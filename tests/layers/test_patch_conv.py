"""A convolution as a matrix product is the same function, with the same checkpoint keys."""

import pytest
import torch
from torch import Tensor, nn

from glimpse.layers import patch_conv
from glimpse.layers.patch_conv import MAX_PIXELS_WHOLE, PatchConv2d


def gradients(layer: nn.Conv2d, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(images)
    outputs.float().square().sum().backward()
    found = [outputs, images.grad, *(p.grad for p in layer.parameters())]
    return [tensor.float() for tensor in found if tensor is not None]


@pytest.mark.parametrize("side", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("amx", [True, False])
def test_outputs_and_gradients_are_those_of_a_convolution(
    monkeypatch: pytest.MonkeyPatch, side: int, bias: bool, amx: bool
) -> None:
    monkeypatch.setattr(patch_conv, "HAS_AMX", amx)
    monkeypatch.setattr(patch_conv, "MIN_KERNELS_BF16", 8 * 16)
    monkeypatch.setattr(patch_conv, "PATCH_VALUES", 2 * 9 * 8 * side**2)  # images two by two
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 8, side, side, generator=generator).bfloat16()
    layer = PatchConv2d(8, 16, bias=bias)
    plain = nn.Conv2d(8, 16, 3, padding=1, bias=bias)
    plain.load_state_dict(layer.state_dict())
    for ours, theirs in zip(gradients(layer, images), gradients(plain, images), strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() <= 0.01 * theirs.norm()  # bf16 keeps 8 bits
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(images)
        layer.requires_grad_(False)
        assert torch.equal(layer(images), outputs)
    assert outputs.dtype == torch.bfloat16
    assert ("_Convolution" in str(outputs.grad_fn)) is amx


@pytest.mark.parametrize("side", [1, 2, 4, 8])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fp32_gradients_are_those_of_a_convolution(
    monkeypatch: pytest.MonkeyPatch, side: int, bias: bool, memory_format: torch.memory_format
) -> None:
    monkeypatch.setattr(patch_conv, "MIN_KERNELS_FP32", 8 * 16)
    monkeypatch.setattr(patch_conv, "PATCH_VALUES", 2 * 9 * 8 * side**2)  # images two by two
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 8, side, side, generator=generator).to(memory_format=memory_format)
    layer = PatchConv2d(8, 16, bias=bias).to(memory_format=memory_format)
    plain = nn.Conv2d(8, 16, 3, padding=1, bias=bias)
    plain.load_state_dict(layer.state_dict())
    found = []
    for network in (layer, plain):
        seen = images.clone().requires_grad_()
        outputs = network(seen)
        outputs.square().sum().backward()
        found.append([outputs, seen.grad, *(p.grad for p in network.parameters())])
    assert "_Convolution" in str(layer(images).grad_fn)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("num_channels", "side"), [(511, 4), (512, 9)])
def test_fp32_of_few_channels_or_large_maps_is_left_to_torch(num_channels: int, side: int) -> None:
    layer = PatchConv2d(num_channels, 512, bias=False)
    outputs = layer(torch.zeros(1, num_channels, side, side))
    assert "ConvolutionBackward" in str(outputs.grad_fn)


def test_small_fp32_and_large_bf16_maps_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("took the matrix product")

    monkeypatch.setattr(torch.nn.functional, "linear", refuse)
    layer = PatchConv2d(2, 4)
    layer(torch.zeros(1, 2, 2, 2))
    side = int(MAX_PIXELS_WHOLE**0.5) + 1
    layer.bfloat16()(torch.zeros(1, 2, side, side, dtype=torch.bfloat16))
    with pytest.raises(AssertionError, match="matrix product"):
        layer(torch.zeros(1, 2, 2, 2, dtype=torch.bfloat16))
