"""Build data, augmentation, loss, metrics and classifier from the configuration, and choose the precision.

network.py builds the network, and trainer.py the trainer.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn

from glimpse.callbacks.progressive_sizes import smaller_sizes
from glimpse.class_weights import class_weights
from glimpse.classifier import ImageClassifier
from glimpse.config.build import build, parameters_of, plain, require_target
from glimpse.crash import is_in_own_code
from glimpse.data.augment.base import Augmentation
from glimpse.data.augment.in_order import InOrder
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError, first_line
from glimpse.losses import exact_loss, use_class_weights
from glimpse.monitor import monitor_of
from glimpse.one_pass import output_for_black
from glimpse.optim.optimizer import build_optimizer
from glimpse.optim.schedules import build_schedule
from glimpse.precision import Precision, choose
from glimpse.text import by, kind_of

if TYPE_CHECKING:
    from glimpse.metrics.scoring import Scoring


def build_data(config: DictConfig) -> ImageDataModule:
    """Build the dataset: downloaded, cached and split, with its `spec` set."""
    data = unprepared_data(config)
    data.prepare_data()
    data.setup()
    return data


def unprepared_data(config: DictConfig) -> ImageDataModule:
    """Build the data module without looking for its files.

    Raises:
        UserError: a user's own dataset does not call the constructor of its base class.
    """
    augment = build_augment(config.get("augment"))  # missing if augment=[]
    data = build("data", config.data, data_dir=config.data_dir, seed=config.seed, augment=augment)
    assert isinstance(data, ImageDataModule)
    if "splits" not in vars(data):
        raise UserError(
            f"data._target_={config.data._target_}: its __init__ does not call that of ImageDataModule: "
            "write super().__init__(**common), as docs/extending.md shows"
        )
    return data


def choose_precision(
    config: DictConfig, network: nn.Module, spec: ImageSpec, device: str
) -> Precision:
    """The precision and the memory layout in which a configuration trains and evaluates."""
    sizes = smaller_sizes(config, spec)
    chosen = choose(config.trainer.precision, network, spec, device, smaller=sizes)
    if config.optimizer._target_ == "torch.optim.LBFGS":  # it views all gradients as one vector
        return replace(chosen, memory_format=torch.contiguous_format)
    return chosen


def build_augment(node: DictConfig | None) -> Augmentation | None:
    """Build an augmentation, or several in the order of a list; None without one."""
    if not node:
        return None
    if "_target_" in node:
        built = build("augment", node)
        if isinstance(built, Augmentation):
            return built
        from glimpse.data.augment.per_image import PerImage  # imports all transforms of torchvision

        return PerImage(built, str(node["_target_"]))
    members = {str(name): build_augment(part) for name, part in node.items()}
    found = {name: member for name, member in members.items() if member is not None}
    return InOrder(found) if len(found) > 1 else next(iter(found.values()), None)


def build_loss(node: DictConfig, spec: ImageSpec, *, mixes: bool) -> nn.Module:
    """Build a loss, and try it on two images.

    If the augmentation `mixes`, labels are (B, K) probabilities in training.

    Raises:
        UserError: it does not take logits and labels of this many classes, does not return one
            number with a gradient, sums over images, or has parameters to train.
    """
    loss: nn.Module = build("loss", node)
    target, num_classes, labels = str(node["_target_"]), spec.num_classes, torch.arange(2)
    hint = ": expected forward(self, logits, labels)"
    _require_number(loss, target, num_classes, labels, "labels", hint)
    if mixes:
        shares = F.one_hot(labels, num_classes).float()
        hint = "; the augmentation mixes labels: type augment=none"
        _require_number(loss, target, num_classes, shares, "probabilities", hint)
    _require_mean(loss, target, num_classes)
    if any(parameter.requires_grad for parameter in loss.parameters()):
        raise UserError(
            f"loss {target} has parameters, which no optimizer trains: move them into the network, or set "
            "requires_grad to False"
        )
    return loss


def _require_number(
    loss: nn.Module, target: str, num_classes: int, labels: Tensor, what: str, hint: str
) -> None:
    """Require a number with a gradient for the logits and the labels of two images."""
    logits = torch.zeros(2, num_classes, requires_grad=True)
    given, version = f"logits of 2×{num_classes} and {what} of {by(labels.shape)}", labels._version
    try:
        found = exact_loss(loss, logits, labels)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if "must be Tensor, not list" in str(error):
            hint = "; annotate the argument of __init__ as torch.Tensor to receive a tensor"
        elif is_in_own_code(error):
            error.add_note(f"while loss {target} was given {given}{hint}")
            raise
        raise UserError(
            f"loss {target} does not take {given}, for the {num_classes} classes of this data: "
            f"{first_line(error)}{hint}"
        ) from error
    if not isinstance(found, Tensor) or found.ndim > 0:
        shape = by(found.shape) if isinstance(found, Tensor) else kind_of(found)
        raise UserError(
            f"loss {target} returns {shape} for two images, expected one number, their mean"
        )
    if labels._version != version:
        raise UserError(
            f"loss {target} changes the labels that it is given, which the accuracy needs too: change a "
            "copy, as in labels = labels.clone()"
        )
    if found.is_complex():
        raise UserError(
            f"loss {target} returns a complex number, expected a real one: return its abs()"
        )
    if not _follows(found, logits):
        raise UserError(
            f"loss {target} returns a number without a gradient, expected one computed from the "
            "logits: remove detach(), item() and no_grad() from its forward"
        )


def remark_on_loss(loss: nn.Module, network: nn.Module, spec: ImageSpec) -> str | None:
    """A remark for the user if a loss of log-probabilities is given a network's logits."""
    if not isinstance(loss, nn.NLLLoss):
        return None
    found = output_for_black(network, spec).float()
    if (found.exp().sum() - 1).abs() < 1e-4:
        return None
    return (
        f"{type(loss).__name__} expects log-probabilities, but the network returns logits: type loss=nll, which "
        "takes logits"
    )


def _follows(loss: Tensor, logits: Tensor) -> bool:
    """Whether a loss has a gradient with respect to the logits."""
    if not loss.requires_grad:
        return False
    [gradient] = torch.autograd.grad(loss, logits, allow_unused=True)
    return gradient is not None


def _require_mean(loss: nn.Module, target: str, num_classes: int) -> None:
    """Reject a loss that sums over images, whose value would grow with the batch size."""
    logits, labels = torch.zeros(1, num_classes), torch.zeros(1, dtype=torch.int64)
    one, two = (
        exact_loss(loss, logits.repeat(num, 1), labels.repeat(num)).item() for num in (1, 2)
    )
    if one != 0 and two == 2 * one:
        takes_reduction = "reduction" in parameters_of(type(loss))
        remedy = "type reduction: mean in its YAML file" if takes_reduction else "return their mean"
        raise UserError(
            f"loss {target} adds up the losses of images, expected their mean: {remedy}"
        )


def build_classifier(
    config: DictConfig, network: nn.Module, data: ImageDataModule
) -> ImageClassifier:
    """Combine the network with its loss, optimizer and schedule.

    Raises:
        UserError: the images are too small for the views of `tta`, or a part cannot be built.
    """
    spec = data.spec
    if config.tta == "flip_shift" and min(spec.height, spec.width) < 2:
        raise UserError(
            f"tta=flip_shift shifts images by a pixel, but these are {spec.height}×{spec.width}: type tta=flip"
        )
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
    weights = plain(config.loss).get("class_weights")
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
    """Require `mode` if the monitor's name suggests the opposite of what the metric declares."""
    watched = monitor_of(config)
    name = watched.name.removeprefix("val/")
    if config.mode is not None or name not in scoring.names:
        return
    lower = scoring.lower_is_better(name)
    if lower is not None and lower != (watched.mode == "min"):
        better = "min" if lower else "max"
        raise UserError(
            f"monitor={watched.name}: its name suggests mode={watched.mode}, but the metric declares "
            f"{better}; type mode={better}"
        )
