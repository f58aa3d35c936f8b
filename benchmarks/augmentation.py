"""How long augmenting a batch takes here, against kornia and torchvision; part of `make bench`.

The same change of the same uint8 batch, on one core, interleaved, the best of several:
  ours         (B, H, W, C) as the loader gathers it, to (B, C, H, W), both uint8
  kornia       its float batch, a change drawn for each image (if `pip install kornia`); its
               TrivialAugment draws one operation for the whole batch, and is not compared
  torchvision  v2 transforms, one image after another, because a batch would share its draws; its
               mixup and cutmix draw one share for a batch, and are not compared
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
KORNIA = bool(importlib.util.find_spec("kornia"))
if KORNIA:
    import kornia.augmentation as k  # type: ignore[import-not-found]


def contenders(
    augment: Augmentation, images: Tensor, side: int, *, torchvision: list[Any], kornia: list[Any]
) -> Contenders:
    """What changes this batch, by name; `images` is (B, H, W, C) uint8. An empty list: it has none."""
    planes = images.permute(0, 3, 1, 2).contiguous()
    numbers = torch.arange(len(images))
    labels = F.one_hot(numbers % 10, 10).float()

    def ours() -> None:
        draws = Draws(numbers, seed=0, epoch=0)
        changed = augment.sized(images.permute(0, 3, 1, 2), (side, side), draws)
        if isinstance(augment, Mixing):
            augment.mixed(changed, labels, draws)

    found: Contenders = {"ours": ours}
    if torchvision:
        one = v2.Compose(torchvision)
        found["torchvision"] = lambda: torch.stack([one(image) for image in planes])
    if kornia:
        batch = k.AugmentationSequential(*kornia)  # of a mixture, the images alone
        found["kornia"] = lambda: (batch(planes / 255) * 255).to(torch.uint8)
    return found


def tasks() -> dict[str, Contenders]:
    """A batch of 128 small images for each augmentation, and one of photos for presize."""
    small = torch.randint(0, 256, (128, 32, 32, 3), dtype=torch.uint8)
    photos = torch.randint(0, 256, (64, 256, 256, 3), dtype=torch.uint8)
    moved = [v2.RandomCrop(32, padding=4, padding_mode="reflect"), v2.RandomHorizontalFlip()]
    # name: ours, torchvision's steps after the move, kornia's
    on_small: dict[str, tuple[Augmentation, list[Any] | None, list[Any] | None]] = {
        "crop_flip": (CropFlip(), [], []),
        "cutout": (
            Cutout(),
            [v2.RandomErasing(1.0, (0.25, 0.25), (1.0, 1.0))],
            [k.RandomErasing((0.25, 0.25), (1.0, 1.0), p=1.0)] if KORNIA else None,
        ),
        "colour_jitter": (
            ColourJitter(),
            [v2.ColorJitter(0.4, 0.4, 0.4, 0.1)],
            [k.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0)] if KORNIA else None,
        ),
        "trivial_augment": (TrivialAugment(), [v2.TrivialAugmentWide()], None),
        "mixup": (MixUp(alpha=0.2, mix_p=1.0), None, [k.RandomMixUpV2(p=1.0)] if KORNIA else None),
        "cutmix": (
            CutMix(alpha=1.0, mix_p=1.0),
            None,
            [k.RandomCutMixV2(p=1.0, use_correct_lambda=True)] if KORNIA else None,
        ),
    }
    found = {}
    for name, (augment, torchvision, kornia) in on_small.items():
        start: list[Any] = []
        if KORNIA and kornia is not None:
            start = [
                k.RandomCrop((32, 32), padding=4, padding_mode="reflect"),
                k.RandomHorizontalFlip(),
            ]
        found[f"{name}, 128 of 32×32"] = contenders(
            augment,
            small,
            32,
            torchvision=[] if torchvision is None else moved + torchvision,
            kornia=start + (kornia or []),
        )
    found["presize, 64 of 256×256 to 224×224"] = contenders(
        Presize(),
        photos,
        224,
        torchvision=[
            v2.RandomResizedCrop(224, (0.75, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(10, scale=(1.0, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomPerspective(0.2, 0.75),
            v2.ColorJitter(0.2, 0.2),
        ],
        kornia=[
            k.RandomResizedCrop((224, 224), (0.75, 1.0)),
            k.RandomHorizontalFlip(),
            k.RandomAffine(10, scale=(1.0, 1.1), padding_mode="reflection"),
            k.RandomPerspective(0.2, p=0.75),
            k.ColorJiggle(0.2, 0.2),
        ]
        if KORNIA
        else [],
    )
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
