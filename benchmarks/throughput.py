"""How fast training is here, against bare loops over the same work; `make bench`.

For each task, interleaved, the best of several epochs of
  ours       `python train.py` as users run it: loader, augmentation, counting, callbacks; its
             second epoch, as the others' are not their first either (ours begins anew each time)
  bare       a plain PyTorch loop over tensors in memory: same network, with PyTorch's convolutions,
             same precision, layout, optimizer
  barebones  Lightning's `Trainer(barebones=True)` over the same in-memory batches
  documents  the loop that tutorials teach: torchvision's dataset, ToTensor, DataLoader, fp32
The others run in a process of their own, where torch imports its compiler for every optimizer, as it does in
any script; a run here does without. And, for the loader alone, batches of photos augmented at 224 px: cached
against decoded each time.
Prints images a second and the ratio of ours to each, and writes benchmarks/results.json. The images are
generated at each dataset's shape, so that all can be measured without a download; the documents' loop
reads them through torchvision's own classes (Tiny ImageNet's as JPEG files).
"""

import argparse
import csv
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import glimpse  # noqa: F401 - first, as in train.py: it defers what other imports import

# isort: split
import lightning.pytorch as pl
import numpy as np
import torch
import torchvision
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import ToTensor

from glimpse import precision
from glimpse.assembly import build_data
from glimpse.config.build import build
from glimpse.config.folder import config_folder
from glimpse.config.resolvers import register_resolvers
from glimpse.console import console
from glimpse.data.module import ImageDataModule
from glimpse.layers.patch_conv import PatchConv2d
from glimpse.optim.optimizer import build_optimizer
from glimpse.run import run


@dataclass(frozen=True)
class Task:
    """A dataset's shape, a model, and how many images make an epoch here."""

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    num_images: int
    overrides: tuple[str, ...]


TASKS = (
    Task("fashion_mnist linear", (1, 28, 28), 10, 30_000, ("model=linear",)),
    Task("fashion_mnist mlp", (1, 28, 28), 10, 30_000, ("model=mlp", "model.widths=[256,256]")),
    Task("fashion_mnist small_convnet", (1, 28, 28), 10, 20_000, ("model=small_convnet",)),
    Task("cifar10 convnet", (3, 32, 32), 10, 4_000, ("model=convnet", "augment=crop_flip")),
    Task("tiny_imagenet convnet", (3, 64, 64), 200, 3_200, ("model=convnet",)),
)
BATCH_SIZE = 128
LOADER = "pets 224 px, presize, loader alone"
NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"


@contextmanager
def composing() -> Iterator[Path]:
    """Hydra's groups at hand and a folder for runs, which print nothing themselves."""
    warnings.filterwarnings("ignore")
    console.quiet = True
    register_resolvers()
    with (
        TemporaryDirectory() as folder,
        initialize_config_dir(str(config_folder()), version_base="1.3"),
    ):
        yield Path(folder)


def compose_task(task: Task, folder: Path) -> DictConfig:
    """The run's configuration: generated images of the dataset's shape, no measurement after it."""
    channels, height, width = task.shape
    return compose(
        "train",
        overrides=[
            "data=synthetic",
            f"data.shape=[{channels},{height},{width}]",
            f"data.num_classes={task.num_classes}",
            f"data.num_train={task.num_images}",
            f"data.num_val={task.num_classes}",
            f"data.batch_size={BATCH_SIZE}",
            "trainer.max_epochs=2",
            "trainer.limit_val_batches=0",
            "scheduler=constant",
            "test=false",
            f"output_dir={folder}",
            *task.overrides,
        ],
    )


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

    Convolutions are PyTorch's own, unless asked for: what ours gain is a part of what is measured.
    """

    def __init__(
        self,
        config: DictConfig,
        data: ImageDataModule,
        requested: str,
        *,
        our_convolutions: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = build("model", config.model, data.spec)
        for module in self.network.modules():
            if isinstance(module, PatchConv2d) and not our_convolutions:
                module.__class__ = nn.Conv2d  # type: ignore[assignment]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.precision = precision.choose(requested, self.network, data.spec, device)
        self.network.to(self.device, memory_format=self.precision.memory_format)
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
    [batch] = list(_whole(data))
    return batch.images.permute(0, 3, 1, 2).contiguous(), batch.labels


def _whole(data: ImageDataModule) -> Iterator[Any]:
    loader = data.batches.loader("train")
    loader.order.batch_size = len(loader.rows)
    return iter(loader)


def shuffled(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of [0, 1] floats in random order."""
    for chosen in torch.split(torch.randperm(len(images)), BATCH_SIZE):
        yield images[chosen].float() / 255, labels[chosen]


def bare(config: DictConfig, data: ImageDataModule) -> Epoch:
    """Nothing but tensors and a loop."""
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


def documents(config: DictConfig, data: ImageDataModule, name: str, folder: Path) -> Epoch:
    """The tutorials' loop, in fp32 and the default layout, loading in the main process."""
    bench = Bench(config, data, "32-true")
    bench.precision = precision.Precision("32-true", torch.contiguous_format, "as in tutorials")
    bench.network.to(memory_format=torch.contiguous_format)
    dataset = torchvision_set(name.split()[0], *in_memory(data), folder / name.split()[0])
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True)
    return lambda: bench.timed(iter(loader))


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
        for batch in data.batches.loader("train", training=True, shuffle=True):
            count += len(data.batches.to_network(batch, training=True).labels)
        return count / (time.perf_counter() - began)

    return epoch


def photos_of_documents(folder: Path) -> Epoch:
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


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each, best counts")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    arguments = parser.parse_args()
    results = {}
    with composing() as folder:
        for task in TASKS:
            if arguments.only in task.name:
                with closing(OtherLoops(task)) as others:
                    loops = {
                        name: others.epoch(name) for name in ("bare", "barebones", "documents")
                    }
                    config = compose_task(task, folder)
                    loops = {"ours": ours(config, folder / "run")} | loops
                    results[task.name] = measure(loops, arguments.repeats)
                print(f"{task.name}: {results[task.name]}", flush=True)
        if arguments.only in LOADER:
            photos(folder / "photos", 320)
            loaders = {
                "ours": loader_alone(folder, cache=True),
                "decoded each time": loader_alone(folder, cache=False),
                "documents": photos_of_documents(folder),
            }
            results[LOADER] = measure(loaders, arguments.repeats)
            print(f"{LOADER}: {results[LOADER]}", flush=True)
    show(results)
    (Path(__file__).parent / "results.json").write_text(json.dumps(results, indent=2) + "\n")


class OtherLoops:
    """The loops to compare with, in a process of their own that computes only while we wait for it."""

    def __init__(self, task: Task) -> None:
        ours, theirs = get_context("spawn").Pipe()
        self._connection: Connection[str, float] = ours
        self._process = get_context("spawn").Process(target=run_other_loops, args=(task, theirs))
        self._process.start()

    def epoch(self, name: str) -> Epoch:
        """One of them."""

        def one() -> float:
            self._connection.send(name)
            return self._connection.recv()

        return one

    def close(self) -> None:
        """End the process."""
        self._connection.send("")
        self._process.join()


def run_other_loops(task: Task, connection: "Connection[float, str]") -> None:
    """Run an epoch of the loop that is asked for, until nothing is asked for."""
    import torch._dynamo  # noqa: F401 - as torch does when an optimizer is built

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with composing() as folder:
        config = compose_task(task, folder)
        data = build_data(config)
        loops = {
            "bare": bare(config, data),
            "barebones": barebones(config, data),
            "documents": documents(config, data, task.name, folder),
        }
        while name := connection.recv():
            # Lightning's own setting for its own loop; nobody sets it for the others.
            os.environ[NVML_CHECK] = "1" if name == "barebones" else "0"
            connection.send(loops[name]())


def measure(epochs: dict[str, Epoch], repeats: int) -> dict[str, float]:
    """Best images a second of each contender, in turn."""
    best = dict.fromkeys(epochs, 0.0)
    for _ in range(repeats):
        for name, epoch in epochs.items():
            best[name] = max(best[name], round(epoch(), 1))
    return best


def show(results: dict[str, dict[str, float]]) -> None:
    """The table of ratios."""
    table = Table("task", "ours img/s", "of bare loop", "of barebones", "times the documents'")
    for name, speeds in results.items():
        ratios = [
            f"{speeds['ours'] / speeds[other]:.2f}" if other in speeds else "–"
            for other in ("bare", "barebones", "documents")
        ]
        table.add_row(name, f"{speeds['ours']:,.0f}", *ratios)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
