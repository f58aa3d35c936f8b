"""Start a network from the weights of an earlier training: `model.weights=<file or run folder>`.

The file may be one of our checkpoints, a .safetensors file, or a file that `torch.save` wrote: a
state dict, alone or under a key such as `state_dict` or `model`, with names that wrappers have
prefixed (`module.`, `model.`, `_orig_mod.`). No code in it is executed. Tensors that fit are
loaded, and a message names those that do not.
"""

import argparse
import json
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core.multiarray import scalar  # how NumPy pickles a number
from torch import Tensor, nn

from glimpse.errors import UserError
from glimpse.found_checkpoint import find_checkpoint
from glimpse.text import by, plural, some

# Where training programs keep the state dict, the most specific first.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "weights",
    "params",
)  # fmt: skip
MOST_WRAPPERS = 4  # prefixes on one name, such as module._orig_mod.model.
# Plain data that training programs store beside the weights: arguments, and numbers of NumPy.
PLAIN: list[Any] = [argparse.Namespace, np.dtype, scalar, np.ndarray] + [
    type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")
]
NUM_NAMED = 3  # layers that a message names


class Fit(NamedTuple):
    """How the tensors of a file fit a network. All names are keys of the network's state dict."""

    loaded: dict[str, Tensor]
    misshapen: list[str]
    missing: list[str]
    unexpected: list[str]
    new_head: str | None  # the last layer, if the file has another one or none
    classes_of_file: int | None  # outputs of the file's last layer, if they differ


def load_weights(
    network: nn.Module,
    found: Mapping[str, Tensor],
    source: str,
    *,
    num_classes: int,
    own_names: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
    computed: tuple[str, ...] = (),
    hint: str = "",
) -> str:
    """Copy the tensors of a state dict into a network.

    Args:
        network: The network. Its last layer keeps its weights if the file's last layer has another
            number of classes.
        found: Tensors as they are named in the file.
        source: Where they come from, for messages.
        num_classes: Number of classes of the network.
        own_names: Converts names of a library to those of the network.
        computed: Names in the network's state dict that no file contains.
        hint: What to type if the weights do not fit.

    Returns:
        A line that says what was loaded.

    Raises:
        UserError: a layer has another shape or is missing, or the file belongs to a deeper network.
            The message names the first such layer and counts the others.
    """
    wanted = {k: v for k, v in network.state_dict().items() if k not in computed}
    named = [
        {name: tensor for name, tensor in own_names(state).items() if name not in computed}
        for state in _without_wrappers(found)
    ]
    best = max(named, key=lambda state: sum(name in wanted for name in state))
    fit = _fit(wanted, best, num_classes)
    counts = (
        f"{_num_layers(fit.loaded)} of {_num_layers(wanted)} layers fit, "
        f"{_num_layers(fit.missing)} missing, {_num_layers(fit.unexpected)} not expected"
    )
    wrong = _what_is_wrong(wanted, best, fit)
    if wrong:
        raise UserError(f"{source}: {wrong} ({counts}){hint}")
    for name, tensor in fit.loaded.items():
        wanted[name].copy_(tensor)
    return f"{source}: {_described(fit, wanted, num_classes)}"


def _fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], num_classes: int) -> Fit:
    same = {n: t for n, t in found.items() if n in wanted and t.shape == wanted[n].shape}
    misshapen = [n for n in wanted if n in found and n not in same]
    missing = [n for n in wanted if n not in found and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in found if n not in wanted]
    misfits = {_owner(n) for n in (*misshapen, *missing)}
    head = next((one for one in _heads(wanted, num_classes) if one in misfits), None)
    if head is None:
        return Fit(same, misshapen, missing, unexpected, None, None)
    others = [n for n in misshapen if _owner(n) == head]
    if any(found[n].shape[1:] != wanted[n].shape[1:] for n in others):
        return Fit(same, misshapen, missing, unexpected, None, None)
    return Fit(
        {n: t for n, t in same.items() if _owner(n) != head},
        [n for n in misshapen if _owner(n) != head],
        [n for n in missing if _owner(n) != head],
        unexpected,
        head,
        len(found[others[0]]) if others else None,
    )


def _heads(wanted: Mapping[str, Tensor], num_classes: int) -> list[str]:
    """The layers with one output for each class, the last one first."""
    layers = [_owner(n) for n, t in wanted.items() if t.ndim >= 2 and len(t) == num_classes]
    return layers[::-1]


def _what_is_wrong(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], fit: Fit
) -> str | None:
    if fit.misshapen:
        name = fit.misshapen[0]
        return f"{name} is {_shape(found[name])}, expected {_shape(wanted[name])}"
    if fit.missing:
        return f"{fit.missing[0]} is missing, expected {_shape(wanted[fit.missing[0]])}"
    for name, tensor in fit.loaded.items():
        if not tensor.isfinite().all():
            return f"{name} contains numbers that are not finite, from a training that diverged: choose another file"
    if not fit.loaded:
        return f"nothing fits; the file has {some(list(found), NUM_NAMED)}"
    parts = {_part(name) for name in wanted}
    deeper = [name for name in fit.unexpected if _part(name) in parts]
    if deeper:  # such as layer3.6 of a deeper network
        return f"{deeper[0]} is {_shape(found[deeper[0]])}, expected no such layer"
    return None


def _described(fit: Fit, wanted: Mapping[str, Tensor], num_classes: int) -> str:
    text = f"{_num_layers(fit.loaded)} of {plural(_num_layers(wanted), 'layer')} loaded"
    if fit.new_head:
        has = f"has {fit.classes_of_file} classes" if fit.classes_of_file else "has none"
        text += f"; {fit.new_head} is new for {num_classes} classes, the file {has}"
    if fit.unexpected:
        layers = list(dict.fromkeys(map(_owner, fit.unexpected)))
        names = some(layers, NUM_NAMED)
        text += f"; {plural(len(layers), 'layer')} of the file not used ({names})"
    return text


def _without_wrappers(state: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The state dict, then without the first part that most of its names share, and so on."""
    yield state
    for _ in range(MOST_WRAPPERS):
        parts = Counter(name.partition(".")[0] for name in state if "." in name)
        if not parts:
            return
        prefix, number = parts.most_common(1)[0]
        if 2 * number < len(state):
            return
        state = {name.removeprefix(f"{prefix}."): tensor for name, tensor in state.items()}
        yield state


class Weights(NamedTuple):
    """The tensors of a file.

    `statistics` are the mean and the standard deviation (C,) that the backbone of a run of
    model=pretrained, or of its export, expects; None for other files. A run that started from
    random weights expects the statistics of its own data.
    """

    tensors: Mapping[str, Tensor]
    statistics: tuple[Tensor, Tensor] | None = None


def of_network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors, under its own names, in the state dict of a classifier."""
    prefix = "network."
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def read_weights(path: Path) -> Weights:
    """Read the tensors of a file or of a run folder's best checkpoint, without running code.

    Raises:
        UserError: the file does not exist, contains no state dict, or contains code.
    """
    content = _content(path)
    if isinstance(content, dict) and "glimpse" in content:  # one of our checkpoints
        tensors = of_network(content["state_dict"])
        return Weights(tensors, _statistics(tensors, content["glimpse"]))
    found = _state_dict(content)
    if not found:
        if isinstance(content, dict):
            holds = ", ".join(map(str, list(content)[:NUM_NAMED])) or "nothing"
        else:
            holds = f"a {type(content).__name__}"
        raise UserError(
            f"model.weights={path}: the file contains {holds}, expected a state dict of tensors"
        )
    return Weights(found, _stated_statistics(path))


def _statistics(
    tensors: Mapping[str, Tensor], saved: Mapping[str, Any]
) -> tuple[Tensor, Tensor] | None:
    scale, shift = tensors.get("scale"), tensors.get("shift")
    if scale is None or shift is None:
        return None
    mean, std = (torch.tensor(saved["spec"][name]) for name in ("mean", "std"))
    if saved["config"]["model"].get("weights") in (None, "none"):
        return mean, std
    expected = std / scale.float().flatten()
    return mean - shift.float().flatten() * expected, expected


def _stated_statistics(path: Path) -> tuple[Tensor, Tensor] | None:
    """The mean and the standard deviation that a .safetensors file of `glimpse export` states."""
    if path.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
    if not {"mean", "std"} <= set(about):
        return None
    try:
        mean, std = (torch.tensor(json.loads(about[name])) for name in ("mean", "std"))
    except (TypeError, ValueError):  # another program's metadata of this name
        return None
    return mean, std


def _content(path: Path) -> Any:
    """The content of a file, or of a run folder's best checkpoint."""
    if path.is_dir():
        path = find_checkpoint(path)
    if not path.is_file():
        expected = "expected none, a file or a run folder"
        if str(path) == "default":
            expected += "; only model=pretrained has default weights"
        raise UserError(f"model.weights={path}: no such file; {expected}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on kinds that are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"model.weights={path}: {error.strerror or error}") from error
    except Exception as error:  # each format has its own errors for a file in another format
        raise UserError(f"model.weights={path}: {_unreadable(error)}") from error


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, wherever a training program has put it; empty without one."""
    if not isinstance(content, dict):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if 2 * len(tensors) > len(content):
        return tensors
    inner = {str(name): _state_dict(value) for name, value in content.items()}
    inner = {name: value for name, value in inner.items() if value and "optim" not in name}
    for name in (*WRAPPERS, *inner):
        if name in inner:
            return inner[name]
    return tensors


def _unreadable(error: Exception) -> str:
    code = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and code:
        return (
            f"the file contains code ({code[1]}), which is not run: expected a state dict, as "
            "torch.save(network.state_dict(), path) writes it"
        )
    if "TorchScript" in str(error):
        return "the file contains a TorchScript program, expected a state dict"
    return (
        "the file does not contain a readable state dict; expected a .pth or .safetensors file, or "
        "a run folder"
    )


def _owner(name: str) -> str:
    """The layer that a tensor belongs to."""
    return name.rpartition(".")[0]


def _part(name: str) -> str:
    """The part of the network that a tensor belongs to, such as `layer3`."""
    return name.removeprefix("backbone.").partition(".")[0]


def _num_layers(names: Mapping[str, Tensor] | list[str]) -> int:
    return len({_owner(name) for name in names})


def _shape(tensor: Tensor) -> str:
    return by(tensor.shape) or "one number"
