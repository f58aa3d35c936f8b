"""Build the parts of a run from its configuration: data, classifier and trainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from omegaconf import DictConfig
from torch import nn

from glimpse.callbacks.checkpoints import AtomicCheckpointIO
from glimpse.class_weights import class_weights
from glimpse.classifier import ImageClassifier
from glimpse.config.build import build, parameters_of, plain, require_target
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.lightning_compat import skip_empty_hooks
from glimpse.losses import use_class_weights
from glimpse.monitor import monitor_of
from glimpse.optim.optimizer import build_optimizer

if TYPE_CHECKING:
    from glimpse.metrics.scoring import Scoring

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def build_data(config: DictConfig) -> ImageDataModule:
    """Build the dataset: downloaded, cached and split, with its `spec` set."""
    data = unprepared_data(config)
    data.prepare_data()
    data.setup()
    return data


def unprepared_data(config: DictConfig) -> ImageDataModule:
    """Build the data module without looking for its files."""
    augment = build("augment", config.augment)
    data = build("data", config.data, data_dir=config.data_dir, seed=config.seed, augment=augment)
    assert isinstance(data, ImageDataModule)
    return data


def build_classifier(
    config: DictConfig, network: nn.Module, data: ImageDataModule
) -> ImageClassifier:
    """Combine the network with its loss, optimizer and schedule."""
    return ImageClassifier(
        network,
        data.spec,
        loss=_build_loss(config, data),
        make_optimizer=lambda net: build_optimizer(net, config.optimizer),
        make_schedule=lambda optimizer, total_steps: build(
            "scheduler", config.scheduler, optimizer, total_steps=total_steps
        ),
        seed=config.seed,
        tta=config.tta,
        scoring=build_metrics(config, data.spec),
        by_class=data.is_unbalanced,
    )


def _build_loss(config: DictConfig, data: ImageDataModule) -> nn.Module:
    loss: nn.Module = build("loss", config.loss)
    weights = plain(config)["loss"].get("class_weights")
    if weights is not None:
        use_class_weights(loss, class_weights(weights, data))
    return loss


def build_metrics(config: DictConfig, spec: ImageSpec) -> "Scoring | None":
    """Build the metrics besides loss and accuracy; None if there are none.

    Raises:
        UserError: a metric does not fit the data, or the monitor's mode cannot be inferred.
    """
    nodes = {str(name): node for name, node in (config.get("metrics") or {}).items() if node}
    if not nodes:
        return None
    from glimpse.metrics.scoring import Scoring

    metrics = {}
    for name, node in nodes.items():
        known = parameters_of(require_target("metrics", str(node["_target_"])))
        asks = "num_classes" in known and "num_classes" not in node
        facts = {"num_classes": spec.num_classes} if asks else {}
        metrics[name] = build("metrics", node, **facts)
    scoring = Scoring(metrics, spec.num_classes)
    _require_known_mode(config, scoring)
    return scoring


def _require_known_mode(config: DictConfig, scoring: "Scoring") -> None:
    """Require `mode` if the name of the monitor says the opposite of what the metric itself says."""
    watched = monitor_of(config)
    name = watched.name.removeprefix("val/")
    if config.mode is not None or name not in scoring.names:
        return
    lower = scoring.lower_is_better(name)
    if lower is not None and lower != (watched.mode == "min"):
        better = "min" if lower else "max"
        raise UserError(
            f"monitor={watched.name}: its name suggests mode={watched.mode}, but the metric says "
            f"{better}; type mode={better}"
        )


def device_of(config: DictConfig) -> str:
    """The device ("cpu", "cuda" or "mps") that `trainer.accelerator` selects on this machine.

    Raises:
        UserError: the configuration asks for a GPU that this machine does not have.
    """
    asked = str(config.trainer.accelerator)
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (asked in ("gpu", "cuda") and not (has_cuda or (asked == "gpu" and has_mps))) or (
        asked == "mps" and not has_mps
    ):
        raise UserError(
            f"trainer.accelerator={asked}: this machine has no such device; type trainer=cpu"
        )
    if asked == "cpu":
        return "cpu"
    return "cuda" if has_cuda and asked != "mps" else "mps" if has_mps else "cpu"


def build_trainer(
    config: DictConfig,
    precision_name: str,
    loggers: Sequence[Logger],
    folder: Path,
    ours: list[Callback],
) -> pl.Trainer:
    """Build Lightning's Trainer with the configured callbacks, followed by our own.

    Raises:
        UserError: Lightning rejects the arguments.
    """
    arguments = dict(plain(config)["trainer"]) | {"precision": precision_name}
    if arguments["profiler"] in PROFILERS:  # writes fit-profile.txt to the run folder
        arguments["profiler"] = PROFILERS[arguments["profiler"]](dirpath=folder, filename="profile")
    callbacks = [build("callbacks", node) for node in (config.callbacks or {}).values() if node]
    callbacks += ours
    for callback in callbacks:
        skip_empty_hooks(callback)
    try:
        trainer = pl.Trainer(
            **arguments,
            logger=list(loggers) or False,
            callbacks=callbacks,
            default_root_dir=folder,
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
    return trainer
