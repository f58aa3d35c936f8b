"""Build a network for the images of a dataset, and check at once that it fits them."""

import copy
import inspect
import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from glimpse.config.build import accepts, build, parameters_of, plain, require_target
from glimpse.config.trust import is_from
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.layers.image_size import USUAL_SIDES
from glimpse.one_pass import evaluating, output_for_black
from glimpse.own_methods import takes
from glimpse.seeding import OVER_A_MILLION, seed_all, untouched_generators
from glimpse.text import by, kind_of

# Packages whose networks keep all weights in their state.
COMPLETE = ("torch", "torchvision", "timm")
OTHER_SEED = OVER_A_MILLION


def build_network(node: Mapping[Any, Any], spec: ImageSpec) -> nn.Module:
    """Build a network for images of this spec.

    A network takes the spec as its first argument or as `spec`, or it takes `num_classes` and
    perhaps `in_channels` (or `in_chans`), or its YAML file gives the number of classes.

    Raises:
        UserError: the network does none of these, does not return logits of (B, num_classes), or
            has a state that checkpoints cannot hold.
    """
    target = str(node["_target_"])
    make = _maker(node, spec)
    network = make()
    if not _is_ours(target):
        _require_logits(network, target, spec)
        _require_tensors(network, target)
        if _may_lack_state(target) and not _is_complete(network, make, spec):
            raise UserError(
                f"model._target_={target} has weights that its state_dict lacks, so checkpoints would lose "
                "them: put layers into nn.ModuleList, tensors into nn.Parameter or register_buffer"
            )
    return network


def remark_on_trained(network: nn.Module, node: Mapping[Any, Any], spec: ImageSpec) -> str | None:
    """Remark that a trained network of the user's own has more state than its checkpoint holds.

    An example is a temperature in a Python attribute that `forward` changes in training.
    """
    target = str(node["_target_"])
    if not _may_lack_state(target) or _is_complete(network, _maker(node, spec), spec):
        return None
    return (
        f"{type(network).__name__} gives other outputs once its checkpoint is loaded: training changed "
        "something that its state_dict lacks, such as a number in an attribute; store it with "
        "register_buffer"
    )


def _maker(node: Mapping[Any, Any], spec: ImageSpec) -> Callable[[], nn.Module]:
    """What builds a network of this configuration for images of this spec."""
    target = str(node["_target_"])
    values = plain(node) if isinstance(node, DictConfig) else dict(node)
    args, kwargs = _image_arguments(require_target("model", target), target, values, spec)
    return partial(build, "model", values, *args, **kwargs)


def _is_ours(target: str) -> bool:
    return target.startswith("glimpse.")


def _may_lack_state(target: str) -> bool:
    """Whether a network can have weights outside its state_dict, as those of users sometimes do."""
    return not _is_ours(target) and not is_from(
        require_target("model", target).__module__, COMPLETE
    )


def _image_arguments(
    found: Any, target: str, values: Mapping[str, Any], spec: ImageSpec
) -> tuple[tuple[ImageSpec, ...], dict[str, Any]]:
    """The arguments that describe the images to a network: positional, and by keyword."""
    parameters = parameters_of(found)
    first = next(iter(parameters.values()), None)
    if "spec" in parameters and parameters["spec"].kind is inspect.Parameter.KEYWORD_ONLY:
        return (), {"spec": spec}
    if "spec" in parameters or (first and "ImageSpec" in str(first.annotation)):
        return (spec,), {}
    if accepts(found, "num_classes"):
        known = {"num_classes": spec.num_classes}
        known |= {name: spec.channels for name in ("in_channels", "in_chans") if name in parameters}
        if is_from(found.__module__, ("timm",)):  # create_model passes it on
            known["in_chans"] = spec.channels
        return (), {name: value for name, value in known.items() if name not in values}
    empty = inspect.Parameter.empty
    is_bare = first is not None and first.default is empty and first.annotation is empty
    if first is not None and is_bare and first.name not in values:
        return (spec,), {}
    if spec.num_classes in values.values():  # the file gives it, for example as n_classes
        return (), {}
    raise UserError(
        f"model._target_={target} takes neither a spec nor num_classes: write "
        "__init__(self, spec, …), or __init__(self, num_classes, in_channels, …), or give the number of "
        f"classes, {spec.num_classes}, in its YAML file"
    )


def remarks_on(network: nn.Module, spec: ImageSpec) -> list[str]:
    """Remarks for the user if their own network is a LightningModule or returns probabilities."""
    name = type(network).__name__
    remarks = []
    if isinstance(network, pl.LightningModule):
        remarks.append(
            f"{name} is a LightningModule: only its forward is used; loss, optimizer, schedule and "
            "metrics come from this configuration"
        )
    if not type(network).__module__.startswith("glimpse.") and _ends_in_softmax(network, spec):
        remarks.append(
            f"{name} returns probabilities, where losses and metrics expect logits: remove softmax from "
            "the end of its forward"
        )
    if not is_from(type(network).__module__, ("glimpse", *COMPLETE)):
        remarks += _remarks_on_modes(network, spec)
    return remarks


def _remarks_on_modes(network: nn.Module, spec: ImageSpec) -> list[str]:
    """Remarks on a network that trains in evaluation mode, or is random or mixes images in it."""
    name = type(network).__name__
    remarks = []
    modes = [module.training for module in network.modules()]
    if not all(modes):
        remarks.append(
            f"{len(modes) - sum(modes)} of the {len(modes)} modules of {name} stay in evaluation mode in "
            "training, as it asks"
        )
    images = torch.rand(2, *spec.shape, generator=torch.Generator().manual_seed(0))
    with suppress(Exception), evaluating(network), torch.no_grad(), untouched_generators():
        first, second, alone = (network(x.clone()) for x in (images, images, images[:1]))
        if not torch.allclose(first, second, rtol=1e-3, atol=1e-4, equal_nan=True):
            remarks.append(
                f"{name} gives other outputs for the same images each time, even in evaluation mode: use "
                "nn.Dropout, or pass training=self.training to F.dropout"
            )
        elif not torch.allclose(first[:1], alone, rtol=1e-3, atol=1e-4, equal_nan=True):
            remarks.append(
                f"{name} gives other outputs for an image beside other images, even in evaluation mode: "
                "scores and predictions depend on the batch"
            )
    return remarks


def _ends_in_softmax(network: nn.Module, spec: ImageSpec) -> bool:
    """Whether the output for a black image is not negative and sums to 1, unlike logits."""
    found = output_for_black(network, spec).float()
    return bool(found.min() >= 0 and (found.sum() - 1).abs() < 1e-4)


def _require_logits(network: nn.Module, target: str, spec: ImageSpec) -> None:
    """Pass a black image through a network, and require a logit with a gradient for each class."""
    if isinstance(network, torch.jit.ScriptModule):
        raise UserError(
            f"model._target_={target} is compiled by torch.jit, whose layers cannot be looked at: return the module "
            "itself, and type compile=default"
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(
            f"model._target_={target} has no parameters to train, expected an nn.Module with layers as "
            "attributes, of which some require gradients"
        )
    _require_forward(network, target)
    size = by(spec.shape)
    with evaluating(network):
        try:
            with torch.enable_grad():
                logits = _logits_of_black(network, spec.shape)
        except Exception as error:
            _explain_size(network, target, spec)
            error.add_note(f"while {target} was given one image of {size}")
            raise
    if not isinstance(logits, Tensor) or logits.shape != (1, spec.num_classes):
        shape = by(logits.shape) if isinstance(logits, Tensor) else kind_of(logits)
        raise UserError(
            f"model._target_={target} returns {shape} for one image of {size}, expected logits of "
            f"1×{spec.num_classes}, one for each class: {_remedy_for(logits, spec.num_classes)}"
        )
    if logits.is_complex():
        raise UserError(
            f"model._target_={target} returns complex numbers, expected real logits: return their absolute "
            "values, output.abs()"
        )
    if not logits.requires_grad:
        raise UserError(
            f"model._target_={target} returns logits without a gradient: remove detach(), data and "
            "no_grad() from its forward"
        )
    _require_the_same_in_training(network, target, spec)


def _require_forward(network: nn.Module, target: str) -> None:
    """Require a forward that can be called with images alone."""
    if getattr(network.forward, "__func__", None) is nn.Module.forward:
        raise UserError(
            f"model._target_={target} has no forward: write def forward(self, images), which returns logits"
        )
    if not takes(network.forward, torch.zeros(0)):
        found = inspect.signature(network.forward)
        raise UserError(
            f"model._target_={target}: its forward{found} cannot be called with images alone: write def "
            "forward(self, images), and give other arguments a default"
        )


def _require_tensors(network: nn.Module, target: str) -> None:
    """Require the state of a network to consist of tensors, as checkpoints do."""
    if not all(isinstance(value, Tensor) for value in network.state_dict().values()):
        raise UserError(
            f"model._target_={target} has a state_dict of more than tensors, which checkpoints cannot hold: "
            "return a tensor from get_extra_state"
        )


def _require_the_same_in_training(network: nn.Module, target: str, spec: ImageSpec) -> None:
    """Require logits in training too, and a state that training does not extend.

    A copy of the network is given two black images. What it raises is left for the training.
    """
    found = _in_training(network, spec.shape)
    if found is None:
        return
    trained, logits = found
    if not isinstance(logits, Tensor):
        raise UserError(
            f"model._target_={target} returns {kind_of(logits)} in training, expected logits alone, as "
            "it returns otherwise; for a network of torchvision, write aux_logits: false into its YAML file"
        )
    if logits.shape != (2, spec.num_classes):
        raise UserError(
            f"model._target_={target} returns {by(logits.shape)} for two images in training, expected "
            f"logits of 2×{spec.num_classes}, as otherwise"
        )
    before, after = (_shapes(one) for one in (network, trained))
    if changed := [name for name in after | before if after.get(name) != before.get(name)]:
        raise UserError(
            f"model._target_={target} creates or resizes {changed[0]} in training, so no checkpoint of it could "
            "be loaded: create every layer and buffer in __init__, with its size"
        )


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    state = network.state_dict()
    return {name: value.shape for name, value in state.items() if isinstance(value, Tensor)}


def _is_complete(network: nn.Module, build_again: Callable[[], nn.Module], spec: ImageSpec) -> bool:
    """Whether the state_dict determines the output, as a checkpoint contains nothing else.

    A second network, drawn with another seed, is given this state and must answer the same. What
    it raises is left for the training, or for whoever loads a checkpoint.
    """
    images = torch.rand(2, *spec.shape, generator=torch.Generator().manual_seed(0))
    answers: list[Tensor] = []
    with (
        torch.no_grad(),
        untouched_generators(),
        redirect_stdout(io.StringIO()),
        suppress(Exception),
    ):
        seed_all(OTHER_SEED)
        # In fp32 and torch's usual memory layout, because other kernels round differently.
        one = copy.deepcopy(network).cpu().float().to(memory_format=torch.contiguous_format).eval()
        other = build_again().eval()
        _logits_of_black(other, spec.shape)  # creates lazy layers
        try:
            # Within another module, as in the classifier. Own methods may be written for the network alone.
            nn.ModuleList([other]).load_state_dict(nn.ModuleList([one]).state_dict())
        except Exception:
            return False
        for each in (one, other):
            seed_all(OTHER_SEED)
            answers.append(each(images.clone()))  # a network may work in place
    if len(answers) < 2:
        return True
    first, second = answers
    return torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True)


def _remedy_for(output: Any, num_classes: int) -> str:
    """What to change in a network whose output is not (1, num_classes)."""
    if not isinstance(output, Tensor):
        return "return them alone from forward"
    if output.shape[:2] == (1, num_classes) and output.numel() == num_classes:
        return "flatten them, with output.flatten(1) in forward"
    if output.ndim == 2:
        return "its last layer needs num_classes outputs"
    return "flatten the features, and end with a linear layer of num_classes outputs"


def _logits_of_black(network: nn.Module, shape: tuple[int, int, int]) -> Any:
    return network(torch.zeros(1, *shape))


def _in_training(network: nn.Module, shape: tuple[int, int, int]) -> tuple[nn.Module, Any] | None:
    """A copy of a network after two black images in training, and its output; None if it fails."""
    try:
        with torch.no_grad(), untouched_generators():
            trained = copy.deepcopy(network).train()
            return trained, trained(torch.zeros(2, *shape))
    except Exception:
        return None


def _explain_size(network: nn.Module, target: str, spec: ImageSpec) -> None:
    """After a failure, try the network on squares, another number of channels, and usual sizes.

    Raises:
        UserError: it accepts one of these.
    """
    channels, height, width = spec.shape
    others = [(channels, side, side) for side in (height, width) if height != width]
    others.append((4 - channels, height, width))
    others += [(channels, side, side) for side in USUAL_SIDES if (side, side) != (height, width)]
    for other in others:
        try:
            logits = _logits_of_black(network, other)
        except Exception:
            continue
        if not (isinstance(logits, Tensor) and logits.shape == (1, spec.num_classes)):
            continue
        if _in_training(network, other) is None:
            continue
        if other[0] == channels:
            needs = "square images" if other[1] in (height, width) else "images of another size"
            remedy = f"type data.size={other[1]}"
        else:
            needs = "grey images" if other[0] == 1 else "images of three channels"
            remedy = "take in_channels or the spec as an argument of __init__"
            if target.startswith("torchvision."):
                name = target.rpartition(".")[2]
                remedy = f"type model=pretrained model.architecture={name}, which takes both"
        raise UserError(
            f"model._target_={target} takes images of {by(other)} but not of {by(spec.shape)}: it needs "
            f"{needs}; {remedy}"
        )
