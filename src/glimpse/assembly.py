"""Build the parts of a run from its configuration: data, network, classifier and trainer."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from omegaconf import DictConfig
from torch import Tensor, nn

from glimpse.checkpoint_file import AtomicCheckpointIO
from glimpse.class_weights import class_weights
from glimpse.classifier import ImageClassifier
from glimpse.config.build import accepts, build, parameters_of, plain, require_target
from glimpse.data.augment.base import Augmentation
from glimpse.data.augment.in_order import InOrder
from glimpse.data.augment.per_image import PerImage
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import ImageSpec
from glimpse.distributed.place import Place
from glimpse.errors import UserError, first_line
from glimpse.lightning_compat import skip_empty_hooks
from glimpse.losses import exact_loss, use_class_weights
from glimpse.monitor import monitor_of
from glimpse.optim.optimizer import build_optimizer
from glimpse.optim.schedules import build_schedule

if TYPE_CHECKING:
    from glimpse.metrics.scoring import Scoring

ACCELERATORS = {"cpu": CPUAccelerator, "cuda": CUDAAccelerator, "mps": MPSAccelerator}
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def build_data(config: DictConfig) -> ImageDataModule:
    """Build the dataset: downloaded, cached and split, with its `spec` set."""
    data = unprepared_data(config)
    data.prepare_data()
    data.setup()
    return data


def unprepared_data(config: DictConfig) -> ImageDataModule:
    """Build the data module without looking for its files."""
    augment = build_augment(config.get("augment"))  # missing if augment=[]
    data = build("data", config.data, data_dir=config.data_dir, seed=config.seed, augment=augment)
    assert isinstance(data, ImageDataModule)
    return data


def build_augment(node: DictConfig | None) -> Augmentation | None:
    """Build an augmentation, or several in the order of a list; None without one."""
    if not node:
        return None
    if "_target_" in node:
        built = build("augment", node)
        if isinstance(built, Augmentation):
            return built
        return PerImage(built, str(node["_target_"]))
    members = {str(name): build_augment(part) for name, part in node.items()}
    found = {name: member for name, member in members.items() if member is not None}
    return InOrder(found) if len(found) > 1 else next(iter(found.values()), None)


def build_network(node: Mapping[Any, Any], spec: ImageSpec) -> nn.Module:
    """Build a network for images of this spec.

    A network takes the spec as its first argument, or `num_classes` and perhaps `in_channels` (or
    `in_chans`).

    Raises:
        UserError: the network takes neither, or does not return logits of (B, num_classes).
    """
    target = str(node["_target_"])
    is_ours = target.startswith("glimpse.")
    values = plain(node) if isinstance(node, DictConfig) else dict(node)
    found = require_target("model", target)
    args, facts = _facts_for(found, target, values, spec)
    network: nn.Module = build("model", values, *args, **facts)
    if not is_ours:
        _require_logits(network, target, spec)
    return network


def _facts_for(
    found: Any, target: str, values: Mapping[str, Any], spec: ImageSpec
) -> tuple[tuple[ImageSpec, ...], dict[str, int]]:
    """The arguments that describe the images to a network: positional, and by keyword."""
    parameters = parameters_of(found)
    first = next(iter(parameters.values()), None)
    if "spec" in parameters or (first and "ImageSpec" in str(first.annotation)):
        return (spec,), {}
    if accepts(found, "num_classes"):
        known = {"num_classes": spec.num_classes}
        known |= {name: spec.channels for name in ("in_channels", "in_chans") if name in parameters}
        return (), {name: value for name, value in known.items() if name not in values}
    empty = inspect.Parameter.empty
    is_bare = first is not None and first.default is empty and first.annotation is empty
    if first is not None and is_bare and first.name not in values:
        return (spec,), {}
    raise UserError(
        f"model._target_={target} takes neither a spec nor num_classes: write "
        "__init__(self, spec, …), or __init__(self, num_classes, in_channels, …)"
    )


def remark_on(network: nn.Module) -> str | None:
    """A remark for the user on a network that is a whole LightningModule; None for any other."""
    if not isinstance(network, pl.LightningModule):
        return None
    return (
        f"{type(network).__name__} is a LightningModule: only its forward is used; loss, optimizer, "
        "schedule and metrics come from this configuration"
    )


def _require_logits(network: nn.Module, target: str, spec: ImageSpec) -> None:
    """Show a network one black image, and require one logit for each class."""
    size = _as_text(spec.channels, spec.height, spec.width)
    was_training = network.training
    network.eval()
    try:
        logits = _answer(network, spec.channels, spec.height, spec.width)
    except Exception as error:
        _explain_size(network, target, spec)
        error.add_note(f"while {target} was given one image of {size}")
        raise
    finally:
        network.train(was_training)
    if not isinstance(logits, Tensor) or logits.shape != (1, spec.num_classes):
        shape = _as_text(*logits.shape) if isinstance(logits, Tensor) else type(logits)
        raise UserError(
            f"model._target_={target} returns {shape} for one image of {size}, expected logits of "
            f"1×{spec.num_classes}, one for each class"
        )


def _answer(network: nn.Module, channels: int, height: int, width: int) -> Any:
    with torch.no_grad():
        return network(torch.zeros(1, channels, height, width))


def _as_text(*sizes: int) -> str:
    return "×".join(map(str, sizes))


def _explain_size(network: nn.Module, target: str, spec: ImageSpec) -> None:
    """Try a network that has failed on squares, and with another number of channels.

    Raises: UserError: it accepts one of these.
    """
    channels, height, width = spec.channels, spec.height, spec.width
    size = _as_text(channels, height, width)
    others = [(channels, side, side) for side in (height, width) if height != width]
    for other in (*others, (4 - channels, height, width)):
        try:
            _answer(network, *other)
        except Exception:
            continue
        if other[0] == channels:
            needs, remedy = "square images", f"type data.size={other[1]}"
        else:
            needs = "grey images" if other[0] == 1 else "images of three channels"
            remedy = "take in_channels or the spec as an argument of __init__"
        raise UserError(
            f"model._target_={target} takes images of {_as_text(*other)} but not of {size}: it needs "
            f"{needs}; {remedy}"
        )


def build_loss(node: DictConfig, spec: ImageSpec, *, mixes: bool) -> nn.Module:
    """Build a loss, and try it on two images.

    Args:
        node: The configuration of the loss.
        spec: The spec of the images.
        mixes: Whether labels are (B, K) probabilities in training.

    Raises:
        UserError: it does not take logits and labels of this many classes, or returns no number.
    """
    loss: nn.Module = build("loss", node)
    target, num_classes = node["_target_"], spec.num_classes
    logits, labels = torch.zeros(2, num_classes, requires_grad=True), torch.arange(2)
    tried = {"labels": labels}
    if mixes:
        tried["probabilities"] = F.one_hot(labels, num_classes).float()
    for what, given in tried.items():
        try:
            found = exact_loss(loss, logits, given)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            hint = "" if what == "labels" else "; the augmentation mixes labels: type augment=none"
            shape = "×".join(map(str, given.shape))
            raise UserError(
                f"loss {target} does not take logits of 2×{num_classes} and {what} of {shape}, for "
                f"the {num_classes} classes of this data: {first_line(error)}{hint}"
            ) from error
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = "×".join(map(str, found.shape)) if isinstance(found, Tensor) else type(found)
            raise UserError(
                f"loss {target} returns {shape} for two images, expected one number, their mean"
            )
        if not found.requires_grad:
            raise UserError(
                f"loss {target} returns a number without a gradient, expected one computed from the "
                "logits: remove detach(), item() and no_grad() from its forward"
            )
    return loss


def build_classifier(
    config: DictConfig, network: nn.Module, data: ImageDataModule
) -> ImageClassifier:
    """Combine the network with its loss, optimizer and schedule."""
    return ImageClassifier(
        network,
        data.spec,
        loss=_weighted_loss(config, data),
        make_optimizer=lambda net: build_optimizer(net, config.optimizer),
        make_schedule=lambda optimizer, total_steps: build_schedule(
            optimizer, plain(config.scheduler), total_steps=total_steps
        ),
        seed=config.seed,
        tta=config.tta,
        scoring=build_metrics(config, data.spec),
        by_class=data.is_unbalanced,
        stops_at_nonfinite=config.on_nonfinite == "stop",
    )


def _weighted_loss(config: DictConfig, data: ImageDataModule) -> nn.Module:
    loss = build_loss(config.loss, data.spec, mixes=bool(data.augment and data.augment.mixes))
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


def build_callback(node: DictConfig, folder: Path) -> Callback:
    """Build a callback.

    Two of Lightning's callbacks get better defaults: ModelCheckpoint saves beside our checkpoints,
    and EarlyStopping checks a training metric at the end of the epoch, when its value is known.
    """
    found = require_target("callbacks", str(node["_target_"]))
    more: dict[str, Any] = {}
    if inspect.isclass(found) and issubclass(found, ModelCheckpoint) and not node.get("dirpath"):
        more = {"dirpath": folder / "checkpoints"}
    if inspect.isclass(found) and issubclass(found, EarlyStopping):
        is_of_training = str(node.get("monitor")).startswith("train/")
        if is_of_training and "check_on_train_epoch_end" not in node:
            more = {"check_on_train_epoch_end": True}
    callback: Callback = build("callbacks", node, **more)
    return callback


def num_processes(config: DictConfig) -> int:
    """How many processes train on this machine: one for each of `trainer.devices`.

    Raises:
        UserError: there are not that many devices.
    """
    accelerator, devices = ACCELERATORS[device_of(config)], plain(config)["trainer"]["devices"]
    if str(devices) in ("auto", "-1"):
        return accelerator.auto_device_count()
    try:
        found = accelerator.parse_devices(devices)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer.devices={devices}: {first_line(error)}") from error
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

    Args:
        place: This process among those of the run, all of which have been started.

    Raises:
        UserError: Lightning rejects the arguments.
    """
    arguments = dict(plain(config)["trainer"]) | {"precision": precision_name}
    arguments["num_nodes"] = place.num_nodes
    several = place.world_size > 1
    if several or place.launcher:
        if isinstance(arguments["devices"], int | str):  # a list names the devices
            arguments["devices"] = place.local_world_size
        if several and arguments["strategy"] == "auto":
            arguments["strategy"] = "ddp"
    # Lightning must not look for launchers itself: it would start processes, or requeue SLURM's jobs.
    environment = TorchElasticEnvironment() if several else LightningEnvironment()
    if arguments["profiler"] in PROFILERS:  # writes fit-profile.txt to the run folder
        arguments["profiler"] = PROFILERS[arguments["profiler"]](dirpath=folder, filename="profile")
    callbacks = [build_callback(node, folder) for node in (config.callbacks or {}).values() if node]
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
        raise UserError(f"trainer: {first_line(error)}") from error
    return trainer
