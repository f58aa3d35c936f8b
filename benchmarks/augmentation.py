"""How long augmenting a batch takes here, against kornia and torchvision; part of `make bench`.

The same change of the same uint8 batch, on one core, interleaved, the best of several:
  ours         (B, H, W, C) as the loader gathers it, to (B, C, H, W), both uint8
  kornia       its float batch, a change drawn for each image (if `pip install kornia`)
  torchvision  v2 transforms, one image after another, because a batch would share its draws
Where theirs would draw one change for the whole batch, it is not compared.
Prints milliseconds a batch and how many times longer the others take.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms import v2

from glimpse.data.augment.base import Augmentation, Draws
from glimpse.data.augment.colour import ColourJitter
from glimpse.data.augment.cutout import Cutout
from glimpse.data.augment.flips import CropFlip
from glimpse.data.augment.mixing import CutMix, Mixing, MixUp
from glimpse.data.augment.presize import Presize
from glimpse.data.augment.trivial import TrivialAugment

Contenders = dict[str, Callable[[], Any]]


def torchvision_ways() -> dict[str, v2.Compose]:
    """For an image each; its mixup and cutmix have one share for a batch."""
    moved = [v2.RandomCrop(32, padding=4, padding_mode="reflect"), v2.RandomHorizontalFlip()]
    return {
        "crop_flip": v2.Compose(moved),
        "cutout": v2.Compose([*moved, v2.RandomErasing(1.0, (0.25, 0.25), (1.0, 1.0))]),
        "colour_jitter": v2.Compose([*moved, v2.ColorJitter(0.4, 0.4, 0.4, 0.1)]),
        "trivial_augment": v2.Compose([*moved, v2.TrivialAugmentWide()]),
        "presize": v2.Compose(
            [
                v2.RandomResizedCrop(224, (0.75, 1.0)),
                v2.RandomHorizontalFlip(),
                v2.RandomAffine(10, scale=(1.0, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
                v2.RandomPerspective(0.2, 0.75),
                v2.ColorJitter(0.2, 0.2),
            ]
        ),
    }


def kornia_ways() -> dict[str, Callable[[Tensor], Tensor]]:
    """For a batch, where kornia is installed; its TrivialAugment has one operation for all of it.

    Of a mixture, the images alone."""
    if not importlib.util.find_spec("kornia"):
        return {}
    import kornia.augmentation as k  # type: ignore[import-not-found]

    whole = k.AugmentationSequential
    moved = [
        k.RandomCrop((32, 32), padding=4, padding_mode="reflect"),
        k.RandomHorizontalFlip(),
    ]
    return {
        "crop_flip": whole(*moved),
        "cutout": whole(*moved, k.RandomErasing((0.25, 0.25), (1.0, 1.0), p=1.0)),
        "colour_jitter": whole(*moved, k.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0)),
        "mixup": whole(*moved, k.RandomMixUpV2(p=1.0)),
        "cutmix": whole(*moved, k.RandomCutMixV2(p=1.0, use_correct_lambda=True)),
        "presize": whole(
            k.RandomResizedCrop((224, 224), (0.75, 1.0)),
            k.RandomHorizontalFlip(),
            k.RandomAffine(10, scale=(1.0, 1.1), padding_mode="reflection"),
            k.RandomPerspective(0.2, p=0.75),
            k.ColorJiggle(0.2, 0.2),
        ),
    }


def tasks() -> dict[str, Contenders]:
    """What changes a batch of small images or of photos, by augmentation and by whose it is."""
    small = torch.randint(0, 256, (128, 32, 32, 3), dtype=torch.uint8)
    photos = torch.randint(0, 256, (64, 256, 256, 3), dtype=torch.uint8)
    on_small: dict[str, Augmentation] = {
        "crop_flip": CropFlip(),
        "cutout": Cutout(),
        "colour_jitter": ColourJitter(),
        "trivial_augment": TrivialAugment(),
        "mixup": MixUp(alpha=0.2, mix_p=1.0),
        "cutmix": CutMix(alpha=1.0, mix_p=1.0),
    }
    torchvision, kornia = torchvision_ways(), kornia_ways()

    def contenders(name: str, augment: Augmentation, images: Tensor, side: int) -> Contenders:
        planes = images.permute(0, 3, 1, 2).contiguous()
        numbers = torch.arange(len(images))
        labels = F.one_hot(numbers % 10, 10).float()

        def ours() -> None:
            draws = Draws(numbers, seed=0, epoch=0)
            changed = augment.sized(images.permute(0, 3, 1, 2), (side, side), draws)
            if isinstance(augment, Mixing):
                augment.mixed(changed, labels, draws)

        found: Contenders = {"ours": ours}
        if name in torchvision:
            found["torchvision"] = lambda: torch.stack([torchvision[name](i) for i in planes])
        if name in kornia:
            found["kornia"] = lambda: (kornia[name](planes / 255) * 255).to(torch.uint8)
        return found

    found = {
        f"{name}, 128 of 32×32": contenders(name, augment, small, 32)
        for name, augment in on_small.items()
    }
    found["presize, 64 of 256×256 to 224×224"] = contenders("presize", Presize(), photos, 224)
    return found


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
