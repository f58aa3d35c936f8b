"""Run sweeps from a test: in this process, with workers of their own, or as the command itself."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from conftest import TRAIN
from glimpse.sweeps.composing import Composer
from glimpse.sweeps.jobs import Job

# Results are compared bit for bit. The server that workers are forked from keeps the first value it saw.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run of a fraction of a second, without pictures.
QUICK = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=64", "data.num_val=32",
    "data.batch_size=16", "model=linear", "trainer=cpu", "trainer.max_epochs=2", "logger=none",
    "callbacks.pictures=null", "name=s",
)  # fmt: skip


def composed_sweep(*overrides: str) -> tuple[HydraContext, DictConfig]:
    """What Hydra hands to a sweeper for `python train.py -m <overrides>`."""
    setup_globals()
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration(
        config_name="train", overrides=list(overrides), run_mode=RunMode.MULTIRUN
    )
    return HydraContext(config_loader=loader, callbacks=Callbacks()), config


def composer_of(*overrides: str) -> Composer:
    context, config = composed_sweep(*overrides)
    return Composer(context.config_loader, config)


def job_of(*overrides: str, number: int = 0, name: str = "job") -> Job:
    return Job(number, overrides, overrides, name)


def sweep(monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> Path:
    """Run a sweep in this process, in `folder`. Returns the sweep's folder.

    Raises:
        UserError: as the command.
    """
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *QUICK, *overrides])
    context, config = composed_sweep(*QUICK, *overrides)
    sweeper = Plugins.instance().instantiate_sweeper(
        hydra_context=context, task_function=lambda config: None, config=config
    )
    sweeper.sweep(list(config.hydra.overrides.task))
    return folder / "outputs" / "sweeps" / "s"


def command(*arguments: str) -> list[str]:
    return [sys.executable, TRAIN, *arguments]


def states(folder: Path) -> dict[str, str]:
    """The states in sweep.json by the folders' names."""
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    return {job["folder"]: job["state"] for job in jobs}


def entry(folder: Path, name: str) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["jobs"]
    return next(job for job in jobs if job["folder"] == name)
