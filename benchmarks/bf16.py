"""What bf16 gains or loses for a whole training step on this CPU, for networks of every kind.

    python benchmarks/bf16.py --threads 2
    python benchmarks/bf16.py --only mlp,linear

Times a forward pass, a backward pass and a step of AdamW on random images, in fp32 and in bf16 by
turns. Prints microseconds, best of `--repeats`, and the ratio, beside what
`trainer.precision=auto` chooses.
"""

import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision import models

from glimpse.data.spec import ImageSpec
from glimpse.models.linear import Linear
from glimpse.models.mlp import MLP
from glimpse.precision import choose

SECONDS = 0.15  # of one measurement
NETWORKS = (
    "resnet18", "resnext50_32x4d", "regnet_y_400mf", "convnext_tiny", "shufflenet_v2_x0_5",
    "efficientnet_b0", "mobilenet_v2", "mobilenet_v3_small",
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, network, images in tasks():
        if not any(part in name for part in arguments.only.split(",")):
            continue
        auto = choose("auto", network, images, "cpu").name
        network.to(memory_format=torch.channels_last)
        for batch_size in (32, 128, 512) if images.width < 64 else (16,):
            fp32, bf16 = (1e6 * s for s in best(network, images, batch_size, arguments.repeats))
            print(
                f"{name}, {images.width}×{images.height}, batch {batch_size}: fp32 {fp32:,.0f} µs, "
                f"bf16 {bf16:,.0f} µs, ratio {fp32 / bf16:.2f}, auto: {auto}",
                flush=True,
            )


def tasks() -> Iterator[tuple[str, nn.Module, ImageSpec]]:
    """Yield names, networks and the images that they read."""
    grey, colour, large = spec(1, 28, 10), spec(3, 32, 2), spec(3, 64, 200)
    yield "linear", Linear(grey), grey
    for width in (32, 64, 128, 256, 512):
        yield f"mlp {width}", MLP(grey, widths=[width]), grey
    yield "mlp 512, 128", MLP(colour, widths=[512, 128]), colour
    yield "linear", Linear(large), large
    # 12 blocks of width 192 over patches of 8×8 pixels
    transformer = models.VisionTransformer(64, 8, 12, 3, 192, 768, num_classes=200)
    yield "vision transformer", transformer, large
    for name in NETWORKS:
        yield name, models.get_model(name, num_classes=200), large


def spec(channels: int, side: int, num_classes: int) -> ImageSpec:
    """Square images of a side in pixels."""
    names, zeros, ones = tuple(map(str, range(num_classes))), (0.0,) * channels, (1.0,) * channels
    return ImageSpec(num_classes, names, channels, side, side, mean=zeros, std=ones)


def best(network: nn.Module, of: ImageSpec, batch_size: int, repeats: int) -> tuple[float, float]:
    """The seconds of a step in fp32 and in bf16."""
    images = torch.randn(batch_size, of.channels, of.height, of.width)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, of.num_classes, (batch_size,))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)

    def step(bf16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss: Tensor = nn.functional.cross_entropy(network(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def seconds(bf16: bool, number: int) -> float:
        began = time.perf_counter()
        for _ in range(number):
            step(bf16)
        return (time.perf_counter() - began) / number

    number = max(1, int(SECONDS / max(seconds(False, 2), seconds(True, 2))))
    pairs = [(seconds(False, number), seconds(True, number)) for _ in range(repeats)]
    fp32, bf16 = (min(times) for times in zip(*pairs, strict=True))
    return fp32, bf16


if __name__ == "__main__":
    main()
