"""What the benchmarks train: the shapes of datasets, with a model each, and their configurations."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import glimpse  # noqa: F401 - first, as in train.py: it defers what other imports import

# isort: split
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from glimpse.config.folder import config_folder
from glimpse.config.resolvers import register_resolvers
from glimpse.console import console


@dataclass(frozen=True)
class Task:
    """A dataset's shape, a model, and how many images make an epoch here."""

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    num_images: int
    overrides: tuple[str, ...]


TASKS = (
    Task("fashion_mnist linear", (1, 28, 28), 10, 60_000, ("model=linear",)),
    Task("fashion_mnist mlp", (1, 28, 28), 10, 60_000, ("model=mlp", "model.widths=[256,256]")),
    Task("fashion_mnist small_convnet", (1, 28, 28), 10, 60_000, ("model=small_convnet",)),
    Task("cifar10 convnet", (3, 32, 32), 10, 4_000, ("model=convnet", "augment=crop_flip")),
    Task("tiny_imagenet convnet", (3, 64, 64), 200, 3_200, ("model=convnet",)),
)
BATCH_SIZE = 128


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
