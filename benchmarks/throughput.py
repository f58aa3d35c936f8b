"""How fast training is here, against bare loops over the same work; `make bench`.

For each task, interleaved, the best of several epochs of
  ours       `python train.py` as users run it: loader, augmentation, counting, callbacks
  bare       a plain PyTorch loop over tensors in memory: same network, precision, layout, optimizer
  barebones  Lightning's `Trainer(barebones=True)` over the same in-memory batches
  documents  the loop that tutorials teach: torchvision dataset, ToTensor, DataLoader, fp32
Prints images a second and the ratio of ours to each, and writes benchmarks/results.json. The data is
generated at each dataset's shape; the documents' loop reads the same images as PIL, as torchvision's
datasets hold them, so that all can be measured without a download.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import pil_to_tensor

from glimpse import launch, optim, precision
from glimpse.config import build, config_folder
from glimpse.console import console
from glimpse.data.module import ImageDataModule
from glimpse.run import build_data, run


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
    Task("tiny_imagenet convnet", (3, 64, 64), 200, 1_600, ("model=convnet",)),
)
BATCH_SIZE = 128


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
            "trainer.max_epochs=1",
            "trainer.limit_val_batches=0",
            "scheduler=constant",
            "test=false",
            f"output_dir={folder}",
            *task.overrides,
        ],
    )


Epoch = Callable[[], float]  # runs one epoch and returns images a second


def ours(config: DictConfig, folder: Path) -> Epoch:
    """The project's own epoch, measured by itself."""

    def epoch() -> float:
        run(config, folder, {"data": "synthetic", "model": "benchmark"})
        return float(json.loads((folder / "summary.json").read_text())["images_per_second"])

    return epoch


class Bench:
    """Network, precision and optimizer of a run, for the loops that it is measured against."""

    def __init__(self, config: DictConfig, data: ImageDataModule, requested: str) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = build("model", config.model, data.spec)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.precision = precision.choose(requested, self.network, data.spec, device)
        self.network.to(self.device, memory_format=self.precision.memory_format)
        self.optimizer = optim.build_optimizer(self.network, config.optimizer)
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
    loader = data.loader("train")
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


class _PILImages(Dataset[tuple[Tensor, int]]):
    """What torchvision's in-memory datasets do for each image: an array to PIL to a tensor."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.arrays = images.permute(0, 2, 3, 1).numpy()
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        array = self.arrays[index]
        image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
        return pil_to_tensor(image).float() / 255, self.labels[index]


def documents(config: DictConfig, data: ImageDataModule) -> Epoch:
    """The tutorials' loop, in fp32 and the default layout, loading in the main process."""
    bench = Bench(config, data, "32-true")
    bench.precision = precision.Precision("32-true", torch.contiguous_format, "as in tutorials")
    bench.network.to(memory_format=torch.contiguous_format)
    loader = DataLoader(_PILImages(*in_memory(data)), BATCH_SIZE, shuffle=True)
    return lambda: bench.timed(iter(loader))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each, best counts")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    console.quiet = True
    launch.register_resolvers()
    results = {}
    with (
        TemporaryDirectory() as folder,
        initialize_config_dir(str(config_folder()), version_base="1.3"),
    ):
        for task in TASKS:
            if arguments.only in task.name:
                results[task.name] = measure(task, Path(folder), arguments.repeats)
                print(f"{task.name}: {results[task.name]}", flush=True)
    show(results)
    (Path(__file__).parent / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def measure(task: Task, folder: Path, repeats: int) -> dict[str, float]:
    """Best images a second of each contender, in turn."""
    config = compose_task(task, folder)
    data = build_data(config)
    contenders = {
        "ours": ours(config, folder / "run"),
        "bare": bare(config, data),
        "barebones": barebones(config, data),
        "documents": documents(config, data),
    }
    best = dict.fromkeys(contenders, 0.0)
    for _ in range(repeats):
        for name, epoch in contenders.items():
            best[name] = max(best[name], round(epoch(), 1))
    return best


def show(results: dict[str, dict[str, float]]) -> None:
    """The table of ratios."""
    table = Table("task", "ours img/s", "of bare loop", "of barebones", "times the documents'")
    for name, speeds in results.items():
        ratios = [speeds["ours"] / speeds[other] for other in ("bare", "barebones", "documents")]
        table.add_row(name, f"{speeds['ours']:,.0f}", *(f"{ratio:.2f}" for ratio in ratios))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
