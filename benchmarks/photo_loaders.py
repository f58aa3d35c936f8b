"""The loaders of photos that `make bench` compares: ours, with and without a cache, and that of tutorials."""

import time
from pathlib import Path

import numpy as np
import torchvision
from hydra import compose
from loops import Epoch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from glimpse.assembly import build_data


def photos(folder: Path, num_images: int) -> None:
    """JPEG photos of about 500×375 in two class folders: smooth shapes with a little grain."""
    random = np.random.default_rng(0)
    for number in range(num_images):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        grain = random.normal(0, 4, (375, 500, 3))
        pixels = (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)
        path = folder / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def loader_alone(folder: Path, *, cache: bool) -> Epoch:
    """Batches of 64 photos, presized to 256 and augmented to 224 px; no network."""
    config = compose(
        "train",
        overrides=[
            "data=image_folder",
            f"data.root={folder / 'photos'}",
            f"data_dir={folder}",
            "data.presize=256",
            "data.size=224",
            "augment=presize",
            f"data.cache={cache}",
        ],
    )
    data = build_data(config)

    def epoch() -> float:
        count, began = 0, time.perf_counter()
        for batch in data.batches.loader("train", training=True):
            count += len(data.batches.to_network(batch, training=True).labels)
        return count / (time.perf_counter() - began)

    return epoch


def photos_of_tutorial(folder: Path) -> Epoch:
    """The tutorials' loop over the same photos: decoded and changed one by one, in the main process."""
    changes = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(256),
            transforms.RandomResizedCrop(224, scale=(0.75, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(10),
            transforms.RandomPerspective(0.2),
            transforms.ColorJitter(0.2, 0.2),
            transforms.ToTensor(),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(str(folder / "photos"), transform=changes)
    loader = DataLoader(dataset, 64, shuffle=True)

    def epoch() -> float:
        began = time.perf_counter()
        count = sum(len(labels) for _, labels in loader)
        return count / (time.perf_counter() - began)

    return epoch
