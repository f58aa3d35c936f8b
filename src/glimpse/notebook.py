"""Run `python train.py` from a notebook, without output, and return the result.

This module serves notebooks/. Runs use a temporary folder and leave nothing behind.
To keep a run, start it with train.py.
"""

import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

with warnings.catch_warnings():  # hides the warning about missing widgets when Lightning imports it
    warnings.filterwarnings("ignore", "IProgress not found")
    import tqdm.auto  # noqa: F401

from omegaconf import DictConfig
from torch import nn

from glimpse import scripting
from glimpse.assembly import build_data, unprepared_data
from glimpse.config.build import packages_of
from glimpse.config.compose import composed
from glimpse.config.folder import config_folder
from glimpse.config.quoting import quoted
from glimpse.console import console
from glimpse.data.module import ImageDataModule
from glimpse.found_checkpoint import CHECKPOINTS, LAST
from glimpse.runs.trained import TrainedRun


@dataclass(frozen=True)
class Trained:
    """The result of a run.

    Attributes:
        data: The data that the network was trained on.
        network: The network with the weights of the last epoch, in evaluation mode.
        curves: The columns of metrics.csv, such as "val/acc", with one value per epoch.
    """

    data: ImageDataModule
    network: nn.Module
    curves: dict[str, list[float]]


def data_dir() -> Path:
    """The folder of datasets: the value of GLIMPSE_DATA, or else `data` in the checkout or here."""
    beside = config_folder().parent
    is_checkout = (beside / "train.py").is_file()
    return Path(
        os.environ.get("GLIMPSE_DATA") or (beside if is_checkout else Path()) / "data"
    ).resolve()


def is_here(name: str) -> bool:
    """Whether a dataset's files are in `data_dir()`. Downloads nothing."""
    return unprepared_data(configuration(f"data={name}")).is_here()


def configuration(*overrides: str) -> DictConfig:
    """The configuration that `python train.py <overrides>` composes, reading from `data_dir()`."""
    return composed(_here(overrides))


def load(*overrides: str) -> ImageDataModule:
    """The dataset that `python train.py <overrides>` would train on, with its `spec` set."""
    return build_data(configuration(*overrides))


def train(*overrides: str) -> Trained:
    """Run `python train.py <overrides>` without printing anything."""
    quiet = ("logger=none", "callbacks.pictures=null", "test=false")
    with (
        console.silenced(),
        tempfile.TemporaryDirectory() as temporary,
        scripting.process_unchanged(),
    ):
        folder = Path(temporary)
        config, _ = scripting.run(_here([*overrides, *quiet]), folder=folder)
        checkpoint = folder / CHECKPOINTS / LAST
        last = TrainedRun(checkpoint, trust=packages_of(config))
        return Trained(last.data, last.model, last.curves)


def _here(overrides: Sequence[str]) -> list[str]:
    """The overrides, after one that reads from `data_dir()` unless they name another folder."""
    if any(word.startswith("data_dir=") for word in overrides):
        return list(overrides)
    return [f"data_dir={quoted(data_dir())}", *overrides]
