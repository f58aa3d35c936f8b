"""How long augmenting a batch takes here, against kornia and torchvision; part of `make bench`.

The same change of the same uint8 batch, on one core, interleaved, the best of several:
  ours         (B, H, W, C) as the loader gathers it, to (B, C, H, W), both uint8
  kornia       its float batch, a change drawn for each image (if `pip install kornia`); its
               TrivialAugment draws one operation for the whole batch, and is not compared
  torchvision  v2 transforms, one image after another, because a batch would share its draws
Prints milliseconds a batch and how many times longer the others take.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import v2

from glimpse.data.augment.base import Augmentation, Draws
from glimpse.data.augment.flips import CropFlip
from glimpse.data.augment.presize import Presize
from glimpse.data.augment.trivial import TrivialAugment

Contenders = dict[str, Callable[[], Any]]


def contenders(
    augment: Augmentation, theirs: v2.Transform, images: Tensor, size: tuple[int, int], kornia: Any
) -> Contenders:
    """What changes this batch, by name; `images` is (B, H, W, C) uint8."""
    planes = images.permute(0, 3, 1, 2).contiguous()
    indices = torch.arange(len(images))
    found: Contenders = {
        "ours": lambda: augment.sized(
            images.permute(0, 3, 1, 2), size, Draws(indices, seed=0, epoch=0)
        ),
        "torchvision": lambda: torch.stack([theirs(image) for image in planes]),
    }
    if kornia is not None:
        found["kornia"] = lambda: (kornia(planes / 255) * 255).to(torch.uint8)
    return found


def tasks() -> dict[str, Contenders]:
    """Three batches as training meets them."""
    small = torch.randint(0, 256, (128, 32, 32, 3), dtype=torch.uint8)
    photos = torch.randint(0, 256, (64, 256, 256, 3), dtype=torch.uint8)
    crop_flip = [
        v2.RandomCrop(32, padding=4, padding_mode="reflect"),
        v2.RandomHorizontalFlip(),
    ]
    presize = [
        v2.RandomResizedCrop(224, (0.75, 1.0)),
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(10, scale=(1.0, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomPerspective(0.2, 0.75),
        v2.ColorJitter(0.2, 0.2),
    ]
    kornia: dict[str, Any] = {"crop_flip": None, "presize": None}
    if importlib.util.find_spec("kornia"):
        import kornia.augmentation as k  # type: ignore[import-not-found]

        kornia["crop_flip"] = k.AugmentationSequential(
            k.RandomCrop((32, 32), padding=4, padding_mode="reflect"),
            k.RandomHorizontalFlip(),
        )
        kornia["presize"] = k.AugmentationSequential(
            k.RandomResizedCrop((224, 224), (0.75, 1.0)),
            k.RandomHorizontalFlip(),
            k.RandomAffine(10, scale=(1.0, 1.1), padding_mode="reflection"),
            k.RandomPerspective(0.2, p=0.75),
            k.ColorJiggle(0.2, 0.2),
        )
    return {
        "crop_flip, 128 of 32×32": contenders(
            CropFlip(), v2.Compose(crop_flip), small, (32, 32), kornia["crop_flip"]
        ),
        "trivial_augment, 128 of 32×32": contenders(
            TrivialAugment(),
            v2.Compose([*crop_flip, v2.TrivialAugmentWide()]),
            small,
            (32, 32),
            None,
        ),
        "presize, 64 of 256×256 to 224×224": contenders(
            Presize(), v2.Compose(presize), photos, (224, 224), kornia["presize"]
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="batches of each, best counts")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = Table("augmentation", "ours, ms", "times faster than kornia", "than torchvision")
    for name, ways in tasks().items():
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(repeats + 1):  # the first warms up
            for way, change in ways.items():
                began = time.perf_counter()
                change()
                best[way] = min(best[way], 1000 * (time.perf_counter() - began))
        ratios = [
            f"{best[w] / best['ours']:.1f}" if w in best else "–" for w in ("kornia", "torchvision")
        ]
        table.add_row(name, f"{best['ours']:.2f}", *ratios)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
