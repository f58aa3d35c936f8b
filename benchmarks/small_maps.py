"""What matrix products gain for weight gradients on small maps, in bf16 on a processor with AMX.

    python benchmarks/small_maps.py --threads 2

Times a forward and a backward pass of whole networks with random images, once with these products and
once without, by turns. Prints images a second, best of `--repeats`, and the ratio. `layers/patch_conv.py`
says on which maps the products are used.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from glimpse.data.spec import ImageSpec
from glimpse.layers import patch_conv
from glimpse.models.convnet import ConvNet
from glimpse.models.whitened_net import WhitenedNet


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if not patch_conv.HAS_AMX:
        parser.error("this processor has no AMX: PyTorch's weight gradients are used")
    torch.set_num_threads(arguments.threads)
    for name, build, side, num_images in tasks():
        network = build().to(memory_format=torch.channels_last)
        images = torch.randn(num_images, 3, side, side).to(memory_format=torch.channels_last)
        best = {True: float("inf"), False: float("inf")}
        for _ in range(arguments.repeats):
            for with_products in best:
                patch_conv.HAS_AMX = with_products
                best[with_products] = min(best[with_products], seconds(network, images))
        rates = f"{num_images / best[True]:,.0f} images a second, {num_images / best[False]:,.0f} without"
        print(f"{name}, {side}×{side}: {rates}, ratio {best[False] / best[True]:.2f}", flush=True)


def tasks() -> list[tuple[str, Callable[[], nn.Module], int, int]]:
    """Names, builders, sides of the images, and images in a batch."""
    small, large = spec(32, 10), spec(64, 200)

    def deep() -> nn.Module:
        options = {"widths": (64, 256, 512), "depth": 3, "patch": 3, "stride": 2, "eps": 0.02}
        return WhitenedNet(large, **options)  # type: ignore[arg-type]

    return [
        *(("whitened_net", lambda: WhitenedNet(small), side, 1000) for side in (24, 32)),
        *(("whitened_net, depth 3", deep, side, 250) for side in (32, 48, 64)),
        ("convnet", lambda: ConvNet(small), 32, 128),
        ("convnet", lambda: ConvNet(large), 64, 128),
    ]


def spec(side: int, num_classes: int) -> ImageSpec:
    """Colour images of a side in pixels."""
    names = tuple(map(str, range(num_classes)))
    return ImageSpec(num_classes, names, 3, side, side, mean=(0.0,) * 3, std=(1.0,) * 3)


def seconds(network: nn.Module, images: torch.Tensor) -> float:
    """The time of a forward and a backward pass."""
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(images).float().square().mean()
    loss.backward()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
