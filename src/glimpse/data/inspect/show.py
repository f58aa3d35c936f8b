"""A picture of the first training images before and after augmentation, for `glimpse data show`.

These are the first images of a training run with this seed.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule
from glimpse.plots.grids import draw_grids


def draw_batch(data: ImageDataModule, path: Path, *, num_images: int) -> None:
    """Write a PNG of the first training images, before and after the augmentation if there is one.

    Args:
        data: A data module after its setup.
        path: Path of the PNG.
        num_images: Maximum number of images; the training set may have fewer.
    """
    loader = data.batches.loader("train", training=True)
    shown = list(itertools.islice(loader, -(-num_images // data.batches.batch_size)))
    batch = Batch(
        torch.cat([batch.images for batch in shown])[:num_images],
        torch.cat([batch.labels for batch in shown])[:num_images],
        torch.cat([batch.indices for batch in shown])[:num_images],
    )
    before = data.batches.to_network(batch)
    grids = {"no augmentation": before}
    if data.augment is not None:
        after = data.batches.to_network(batch, training=True, epoch=0)
        grids = {"before augmentation": before, f"after {data.augment.label}": after}
    images = {title: data.batches.to_pixels(seen.images) for title, seen in grids.items()}
    names = data.spec.class_names
    labels = {title: [_name(x, names) for x in seen.labels] for title, seen in grids.items()}
    draw_grids(images, labels, path)


def _name(label: Tensor, class_names: Sequence[str]) -> str:
    """Return the class name, or for mixup and CutMix both class names with their shares."""
    if label.ndim == 0:
        return class_names[int(label)]
    share, found = label.topk(min(2, len(label)))
    parts = zip(share.tolist(), found.tolist(), strict=True)
    mixed = [f"{part:.0%} {class_names[number]}" for part, number in parts if part >= 0.005]
    return class_names[int(found[0])] if len(mixed) == 1 else "\n".join(mixed)
