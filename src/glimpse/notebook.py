"""Runs from a notebook: what `python train.py` would do, quietly, with the result at hand.

For the stories in notebooks/. Runs are kept in a temporary folder and leave nothing behind; those that
are to be kept are started with train.py.
"""

import csv
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

with warnings.catch_warnings():  # that widgets are missing; Lightning imports this in the end
    warnings.filterwarnings("ignore", "IProgress not found")
    import tqdm.auto  # noqa: F401

from omegaconf import DictConfig
from torch import nn

from glimpse.assembly import build_data, unprepared_data
from glimpse.config.compose import composed
from glimpse.config.folder import config_folder
from glimpse.console import console
from glimpse.data.module import ImageDataModule
from glimpse.run import run
from glimpse.runs.trained import TrainedRun


@dataclass(frozen=True)
class Trained:
    """What a run leaves.

    Attributes:
        data: as it was trained on.
        network: with the weights of the last epoch, in evaluation mode.
        curves: the columns of metrics.csv, such as "val/acc", one value an epoch.
    """

    data: ImageDataModule
    network: nn.Module
    curves: dict[str, list[float]]


def data_dir() -> Path:
    """The folder of datasets: what GLIMPSE_DATA names, else `data` of the checkout."""
    return Path(os.environ.get("GLIMPSE_DATA") or config_folder().parent / "data").resolve()


def is_here(name: str) -> bool:
    """Whether a dataset's files are in `data_dir()`; nothing is downloaded to find out."""
    data = unprepared_data(configuration(f"data={name}"))
    return data.embedded or any(True for _ in data.source_files())


def configuration(*overrides: str) -> DictConfig:
    """What `python train.py <overrides>` composes, with `data_dir()` for its data."""
    quoted = "'" + str(data_dir()).replace("\\", "\\\\").replace("'", "\\'") + "'"
    return composed([f"data_dir={quoted}", *overrides])


def load(*overrides: str) -> ImageDataModule:
    """The dataset that `python train.py <overrides>` would train on, with its `spec`."""
    return build_data(configuration(*overrides))


def train(*overrides: str) -> Trained:
    """Run `python train.py <overrides>` and say nothing of it."""
    config = configuration(*overrides, "logger=none", "callbacks.pictures=null", "test=false")
    names = {group: config[group]["_target_"].rpartition(".")[2] for group in ("data", "model")}
    was_quiet, console.quiet = console.quiet, True
    try:
        with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
            folder = Path(temporary)
            run(config, folder, names)
            last = TrainedRun(folder / "checkpoints" / "last.ckpt")
            data = last.data
            with (folder / "metrics.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
    finally:
        console.quiet = was_quiet
    columns = [name for name, value in rows[0].items() if value]
    curves = {name: [float(row[name]) for row in rows] for name in columns}
    return Trained(data, last.inner, curves)
