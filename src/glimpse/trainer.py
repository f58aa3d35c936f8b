"""Build Lightning's Trainer: devices, processes, callbacks and arguments."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from omegaconf import DictConfig

from glimpse.checkpoint_file import AtomicCheckpointIO
from glimpse.config.build import blamed, build, parameters_of, plain, require_target
from glimpse.config.keys import unknown_key
from glimpse.console import console
from glimpse.distributed.place import Place, takes_one_device
from glimpse.errors import UserError, first_line
from glimpse.found_checkpoint import BEST, CHECKPOINTS, LAST
from glimpse.lightning_compat import skip_empty_hooks
from glimpse.own_methods import remarks_on_hooks, require_hooks

ACCELERATORS = {"cpu": CPUAccelerator, "cuda": CUDAAccelerator, "mps": MPSAccelerator}
# By the name of an accelerator, the best first.
DEVICES = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}
# Of Lightning: their weights are in no checkpoint, or they need another module or progress bar.
REFUSED_CALLBACKS = {
    StochasticWeightAveraging: "type callbacks=[ema] for an average of the weights",
    BackboneFinetuning: "type callbacks=[finetune]",
    ProgressBar: "remove it, as a run has its own progress bar",
}
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def device_of(config: DictConfig) -> str:
    """The device ("cpu", "cuda" or "mps") that `trainer.accelerator` selects on this machine.

    Raises:
        UserError: the configuration asks for a GPU that this machine does not have.
    """
    device = device_or_none(config)
    if device is None:
        raise UserError(
            f"trainer.accelerator={config.trainer.accelerator}: this machine has no such device; type "
            "trainer.accelerator=cpu"
        )
    return device


def device_or_none(config: DictConfig) -> str | None:
    """The device as above; None if this machine does not have it."""
    asked = str(config.trainer.accelerator)
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return next((device for device in DEVICES.get(asked, (asked,)) if has[device]), None)


def build_callback(node: DictConfig, folder: Path) -> Callback:
    """Build a callback.

    Two of Lightning's callbacks get better defaults. ModelCheckpoint saves into the folder of our
    checkpoints. EarlyStopping checks a metric when its value is known: a training metric at the end
    of the epoch, a validation metric after each validation. Otherwise, at the end of an epoch
    without validation, it would check the previous value again or, in a resumed run, find none and
    fail.

    Raises:
        UserError: it is one of Lightning's that choose a setting of the run, or it would overwrite the
            run's own checkpoints.
    """
    found = require_target("callbacks", str(node["_target_"]))
    kind = found if inspect.isclass(found) else object
    if issubclass(kind, BatchSizeFinder | LearningRateFinder):
        remedy = "data.batch_size=…" if issubclass(kind, BatchSizeFinder) else "task=lr_find"
        raise UserError(
            f"callbacks: {kind.__name__} replaces settings of the run while it trains, so the run could not be "
            f"repeated: remove it, and type {remedy}"
        )
    for refused, remedy in REFUSED_CALLBACKS.items():
        if issubclass(kind, refused):
            raise UserError(f"callbacks: {kind.__name__} does not work here: {remedy}")
    more: dict[str, Any] = {}
    if issubclass(kind, ModelCheckpoint) and not node.get("dirpath"):
        more = {"dirpath": folder / CHECKPOINTS}
    if issubclass(kind, EarlyStopping) and node.get("check_on_train_epoch_end") is None:
        more = {"check_on_train_epoch_end": str(node.get("monitor")).startswith("train/")}
    callback: Callback = build("callbacks", node, **more)
    if isinstance(callback, ModelCheckpoint):
        _require_other_files(callback, folder / CHECKPOINTS)
    return callback


def _require_other_files(callback: ModelCheckpoint, folder: Path) -> None:
    """Require names of files other than those of the run's own checkpoints.

    Raises:
        UserError: it would overwrite one of them.
    """
    if Path(str(callback.dirpath)).resolve() != folder.resolve():
        return
    if f"{callback.filename}.ckpt" in (BEST, LAST):
        raise UserError(
            f"callbacks: filename: {callback.filename} is the name of the run's own checkpoint: write "
            "another, such as filename: mine"
        )
    if callback.save_last:
        raise UserError(
            f"callbacks: save_last: {str(callback.save_last).lower()} would replace {LAST}, which the run saves "
            "itself: remove save_last"
        )


def num_processes(config: DictConfig) -> int:
    """The number of processes that train on this machine: one for each of `trainer.devices`.

    With neither devices nor a strategy chosen, it is one.

    Raises:
        UserError: there are not that many devices.
    """
    accelerator, devices = ACCELERATORS[device_of(config)], plain(config.trainer)["devices"]
    if takes_one_device(config.trainer):
        return 1
    is_cpu = accelerator is CPUAccelerator
    if str(devices) == "auto" or (str(devices) == "-1" and not is_cpu):
        return accelerator.auto_device_count()
    try:
        found = accelerator.parse_devices(devices)
    except (TypeError, ValueError, MisconfigurationException) as error:
        remedy = (
            "type trainer.devices=<number of processes>" if is_cpu else "type trainer.devices=auto"
        )
        raise UserError(
            f"trainer.devices={devices}: {first_line(error).rstrip('.')}: {remedy}"
        ) from error
    return found if isinstance(found, int) else len(found or [])


def global_batch_size(config: DictConfig, num_processes: int) -> int:
    """Images per batch of all processes together.

    Raises:
        UserError: `data.global_batch_size` cannot be divided among them.
    """
    wanted = config.data.global_batch_size
    if wanted is None:
        return int(config.data.batch_size) * num_processes
    if wanted % num_processes:
        nearest = max(1, round(wanted / num_processes)) * num_processes
        raise UserError(
            f"data.global_batch_size={wanted} cannot be divided among {num_processes} processes: type "
            f"data.global_batch_size={nearest}"
        )
    return int(wanted)


def build_trainer(
    config: DictConfig,
    precision_name: str,
    loggers: Sequence[Logger],
    folder: Path,
    ours: list[Callback],
    *,
    place: Place,
) -> pl.Trainer:
    """Build Lightning's Trainer with the configured callbacks, followed by our own.

    All processes of the run have been started.

    Raises:
        UserError: Lightning rejects the arguments.
    """
    arguments = plain(config.trainer) | {"precision": precision_name}
    known = parameters_of(pl.Trainer)
    for name in arguments:  # an experiment of one's own may define any key
        if name not in known:
            raise UserError(unknown_key(f"trainer.{name}", [f"trainer.{key}" for key in known], []))
    arguments["num_nodes"] = place.num_nodes
    several = place.world_size > 1
    if takes_one_device(arguments) and not several:
        arguments["devices"] = 1
    if several or place.launcher:
        if isinstance(arguments["devices"], int | str):  # a list names the devices
            arguments["devices"] = place.local_world_size
        if several and arguments["strategy"] == "auto":
            arguments["strategy"] = "ddp"
    # Lightning must not look for launchers: it would start processes, or requeue SLURM's jobs.
    environment = TorchElasticEnvironment() if several else LightningEnvironment()
    if arguments["profiler"] in PROFILERS:  # writes fit-profile.txt to the run folder
        arguments["profiler"] = PROFILERS[arguments["profiler"]](dirpath=folder, filename="profile")
    callbacks = [build_callback(node, folder) for node in (config.callbacks or {}).values() if node]
    for callback in callbacks:
        require_hooks(callback)
        for remark in remarks_on_hooks(callback):
            console.print(remark)
    callbacks += ours
    for callback in callbacks:
        skip_empty_hooks(callback)
    try:
        trainer = pl.Trainer(
            **arguments,
            logger=list(loggers) or False,
            callbacks=callbacks,
            default_root_dir=folder,
            plugins=[AtomicCheckpointIO(), environment],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(
            f"trainer rejected {blamed(arguments, error)}: {first_line(error)}"
        ) from error
    return trainer
