"""The loops that `make bench` compares: ours, a bare one, Lightning's own and that of tutorials.

Each is made for a task and then runs an epoch whenever it is called.
"""

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import glimpse  # noqa: F401 - first, as in train.py: it defers what other imports import

# isort: split
import lightning.pytorch as pl
import torch
import torchvision
from omegaconf import DictConfig
from PIL import Image
from tasks import BATCH_SIZE
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

from glimpse import precision
from glimpse.config.build import build
from glimpse.data.module import ImageDataModule
from glimpse.layers.patch_conv import PatchConv2d
from glimpse.optim.optimizer import build_optimizer
from glimpse.run import run

Epoch = Callable[[], float]  # runs one epoch and returns images a second


def ours(config: DictConfig, folder: Path) -> Epoch:
    """The project's own epoch, measured by itself: not a run's first, which shares the processor with
    the thread that writes the run's pictures for TensorBoard."""

    def epoch() -> float:
        run(config, folder, {"data": "synthetic", "model": "benchmark"})
        with (folder / "metrics.csv").open(newline="") as file:
            return float(list(csv.DictReader(file))[-1]["images_per_second"])

    return epoch


class Bench:
    """Network, precision and optimizer of a run, for the loops that it is measured against.

    Convolutions are PyTorch's own, unless asked for: what ours gain is a part of what is measured. The
    layout is the one that a run chooses, unless it is given.
    """

    def __init__(
        self,
        config: DictConfig,
        data: ImageDataModule,
        requested: str,
        *,
        our_convolutions: bool = False,
        memory_format: torch.memory_format | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = build("model", config.model, data.spec)
        for module in self.network.modules():
            if isinstance(module, PatchConv2d) and not our_convolutions:
                module.__class__ = nn.Conv2d  # type: ignore[assignment]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        chosen = precision.choose(requested, self.network, data.spec, device)
        if memory_format is not None:
            chosen = replace(chosen, memory_format=memory_format)
        self.precision = chosen
        self.network.to(self.device, memory_format=chosen.memory_format)
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.loss = nn.CrossEntropyLoss()

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Forward, back, update."""
        with torch.autocast(self.device.type, torch.bfloat16, "bf16" in self.precision.name):
            loss = self.loss(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def timed(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """Images a second over an epoch of float batches."""
        began = time.perf_counter()
        count = 0
        for images, labels in batches:
            images = images.to(self.device, memory_format=self.precision.memory_format)
            self.step(images, labels.to(self.device))
            count += len(labels)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return count / (time.perf_counter() - began)


def in_memory(data: ImageDataModule) -> tuple[Tensor, Tensor]:
    """All training images (N, C, H, W) uint8 and labels, as a bare loop holds them."""
    batches = list(data.batches.loader("train"))
    images = torch.cat([batch.images for batch in batches])
    return images.permute(0, 3, 1, 2).contiguous(), torch.cat([batch.labels for batch in batches])


def shuffled(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of [0, 1] floats in random order."""
    for chosen in torch.split(torch.randperm(len(images)), BATCH_SIZE):
        yield images[chosen].float() / 255, labels[chosen]


def bare(config: DictConfig, data: ImageDataModule) -> Epoch:
    """The bare loop: plain PyTorch over tensors in memory."""
    bench = Bench(config, data, "auto")
    images, labels = in_memory(data)
    images = images.contiguous(memory_format=bench.precision.memory_format)
    return lambda: bench.timed(shuffled(images, labels))


class _Module(pl.LightningModule):
    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.network = bench.network
        self.bench = bench

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images = batch[0].to(memory_format=self.bench.precision.memory_format)
        loss: Tensor = self.bench.loss(self.network(images), batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.bench.optimizer


class _InMemory:
    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return shuffled(self.images, self.labels)

    def __len__(self) -> int:
        return -(-len(self.images) // BATCH_SIZE)


class _Clock(pl.Callback):
    """From an epoch's first batch to its end."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.began


def barebones(config: DictConfig, data: ImageDataModule) -> Epoch:
    """Lightning with everything switched off."""
    bench = Bench(config, data, "auto")
    images, labels = in_memory(data)

    def epoch() -> float:
        clock = _Clock()
        trainer = pl.Trainer(
            barebones=True,
            max_epochs=1,
            precision=bench.precision.name,  # type: ignore[arg-type]
            callbacks=[clock],
        )
        trainer.fit(_Module(bench), _InMemory(images, labels))
        return len(images) / clock.seconds

    return epoch


def torchvision_set(name: str, images: Tensor, labels: Tensor, folder: Path) -> Any:
    """Generated images in torchvision's class for a dataset: FashionMNIST, CIFAR10 or ImageFolder."""
    arrays = images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
    if name == "tiny_imagenet":
        for number, (array, label) in enumerate(zip(arrays, labels.tolist(), strict=True)):
            path = folder / f"{label:03}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path, quality=75)
        return torchvision.datasets.ImageFolder(str(folder), transform=ToTensor())
    kind = {
        "fashion_mnist": torchvision.datasets.FashionMNIST,
        "cifar10": torchvision.datasets.CIFAR10,
    }
    dataset = object.__new__(kind[name])  # their constructors want the original files
    dataset.data = images[:, 0] if name == "fashion_mnist" else arrays
    dataset.targets = labels if name == "fashion_mnist" else labels.tolist()
    dataset.transform, dataset.target_transform = ToTensor(), None
    return dataset


def tutorial(config: DictConfig, data: ImageDataModule, name: str, folder: Path) -> Epoch:
    """The tutorials' loop, in fp32 and the default layout, loading in the main process."""
    bench = Bench(config, data, "32-true", memory_format=torch.contiguous_format)
    dataset = torchvision_set(name.split()[0], *in_memory(data), folder / name.split()[0])
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True)
    return lambda: bench.timed(iter(loader))
