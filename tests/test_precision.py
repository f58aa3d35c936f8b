"""Which precision and layout `trainer.precision=auto` picks: on every kind of processor."""

import pytest
import torch
from torch import nn

from conftest import composed
from glimpse import precision
from glimpse.callbacks.progressive_sizes import smaller_sizes
from glimpse.data.spec import ImageSpec

FP32, BF16 = "32-true", "bf16-mixed"
PLAIN, LAST = torch.contiguous_format, torch.channels_last


def spec(side: int) -> ImageSpec:
    return ImageSpec(
        num_classes=2, class_names=("a", "b"), channels=3, height=side, width=side,
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("device", "hardware", "side", "channels", "name", "layout"),
    [
        ("cuda", "tensor cores", 64, 64, BF16, LAST),
        ("cpu", "AMX", 64, 64, BF16, LAST),
        ("cpu", "AMX", 16, 16, BF16, LAST),
        ("cpu", "AMX", 15, 64, FP32, PLAIN),
        ("cpu", "AMX", 64, 15, FP32, PLAIN),
        ("cpu", None, 64, 64, FP32, LAST),
        ("cuda", None, 64, 64, FP32, LAST),
        ("mps", None, 64, 64, FP32, PLAIN),
    ],
)
def test_the_rule(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    hardware: str | None,
    side: int,
    channels: int,
    name: str,
    layout: torch.memory_format,
) -> None:
    monkeypatch.setattr(precision, "bf16_hardware", lambda _device: hardware)
    network = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, 3))
    chosen = precision.choose("auto", network, spec(side), device)
    assert (chosen.name, chosen.memory_format) == (name, layout)
    if chosen.name == BF16:
        assert hardware is not None
        assert hardware in chosen.reason


@pytest.mark.parametrize(
    ("device", "hardware", "hidden", "name"),
    [
        ("cpu", "AMX", 300, BF16),
        ("cpu", "AMX", 128, FP32),
        ("cpu", None, 300, FP32),
        ("cuda", "tensor cores", 300, FP32),
        ("cuda", "tensor cores", 16_384, BF16),
        ("mps", None, 300, FP32),
    ],
)
def test_large_linear_layers_train_in_bf16(
    monkeypatch: pytest.MonkeyPatch, device: str, hardware: str | None, hidden: int, name: str
) -> None:
    monkeypatch.setattr(precision, "bf16_hardware", lambda _device: hardware)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, hidden), nn.Linear(hidden, 2))
    chosen = precision.choose("auto", network, spec(16), device)
    assert (chosen.name, chosen.memory_format) == (name, PLAIN)
    assert (
        chosen.reason
        == {
            (BF16, hardware): f"large linear layers, and {hardware}",
            (FP32, hardware): "layers as small as these gain nothing from bf16",
            (FP32, None): "no fast bf16 on this processor",
        }[name, hardware]
    )


class WithView(nn.Module):
    """As tutorials write it: `view` fails on maps that are channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.head = nn.Linear(16 * 60 * 60, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.two(self.one(images))
        logits: torch.Tensor = self.head(maps.view(maps.size(0), -1))
        return logits


def test_a_network_that_fails_channels_last_keeps_the_usual_layout() -> None:
    network = WithView()
    chosen = precision.choose("32-true", network, spec(64), "cpu")
    assert chosen.memory_format == torch.contiguous_format
    assert network.two.weight.is_contiguous()
    assert network.two.weight.grad is None
    network(torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize(("channels", "name"), [(1, BF16), (15, FP32)])
def test_linear_layers_must_do_most_of_the_arithmetic(
    monkeypatch: pytest.MonkeyPatch, channels: int, name: str
) -> None:
    monkeypatch.setattr(precision, "bf16_hardware", lambda _device: "AMX")
    convolutions = [nn.Conv2d(3, channels, 3), nn.Conv2d(channels, channels, 3)]
    pooled = [nn.AdaptiveAvgPool2d(16), nn.Flatten(), nn.LazyLinear(1000), nn.Linear(1000, 2)]
    network = nn.Sequential(*convolutions, *pooled)
    network(torch.zeros(1, 3, 64, 64))
    assert precision.choose("auto", network, spec(64), "cpu").name == name


@pytest.mark.parametrize(
    ("device", "groups", "name"), [("cpu", 64, FP32), ("cuda", 64, BF16), ("cpu", 16, BF16)]
)
def test_depthwise_convolutions_stay_in_fp32_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, groups: int, name: str
) -> None:
    monkeypatch.setattr(precision, "bf16_hardware", lambda _device: "fast")
    network = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3, groups=groups))
    chosen = precision.choose("auto", network, spec(64), device)
    assert (chosen.name, chosen.memory_format) == (name, LAST)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "AMX"),
        ({"avx512_bf16": True}, "AVX512-BF16"),
        ({"avx2": True}, None),
    ],
)
def test_what_counts_as_fast(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision.bf16_hardware.__wrapped__("cpu") == expected


@pytest.mark.parametrize(
    ("stride", "kernel", "side", "name"),
    [(2, 3, 1, FP32), (2, 3, 2, BF16), (1, 3, 1, BF16), (1, 5, 1, FP32), (4, 3, 3, FP32), (2, 3, 16, BF16)],
)  # fmt: skip
def test_a_kernel_that_meets_only_padding_stays_in_fp32_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, stride: int, kernel: int, side: int, name: str
) -> None:
    """torch leaves a part of its gradient uninitialised in bf16."""
    monkeypatch.setattr(precision, "bf16_hardware", lambda _device: "AMX")
    network = nn.Sequential(
        nn.AdaptiveAvgPool2d(side),
        nn.Conv2d(3, 16, 1),
        nn.Conv2d(16, 16, kernel, stride, kernel // 2),
    )
    assert precision.choose("auto", network, spec(32), "cpu").name == name
    assert precision.choose("auto", network, spec(32), "cuda").name == BF16
    for asked in ("bf16-mixed", "16-mixed", 16):
        requested = precision.choose(asked, network, spec(32), "cpu")
        assert requested.name == BF16
        assert ("type trainer.precision=auto" in requested.reason) == (name == FP32)
    assert network.training
    assert not network[2]._forward_hooks


def test_a_kernel_that_meets_only_padding_at_a_smaller_size_stays_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "bf16_hardware", lambda _device: "AMX")
    halved = (nn.Conv2d(16, 16, 3, stride=2, padding=1) for _ in range(5))  # 32 pixels to 1
    network = nn.Sequential(nn.Conv2d(3, 16, 1), *halved)
    assert precision.choose("auto", network, spec(32), "cpu").name == BF16
    for smaller in ([(16, 16)], [(24, 24), (8, 8)]):
        chosen = precision.choose("auto", network, spec(32), "cpu", smaller=smaller)
        assert (chosen.name, chosen.reason) == (FP32, precision.WRONG_IN_BF16)
    config, _ = composed("callbacks=[progressive_sizes]")
    assert smaller_sizes(config, spec(32)) == [(16, 16), (24, 24)]


def test_what_is_asked_for_is_taken() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    assert precision.choose("bf16-mixed", linear, spec(2), "cpu").name == BF16


@pytest.mark.parametrize("asked", [16, "16", "16-mixed"])
def test_a_cpu_trains_in_bf16_where_16_is_asked_for(asked: int | str) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    chosen = precision.choose(asked, linear, spec(2), "cpu")
    assert chosen.name == BF16
    assert chosen.reason == f"in place of {asked}, which needs a GPU"
    assert precision.choose(asked, linear, spec(2), "cuda").name == str(asked)
