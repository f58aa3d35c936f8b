"""Optimizers and learning-rate schedules, sized from the run.

A schedule is a factor on the optimizer's `lr`, as a pure function of the step (or, for `step`, of
the epoch), so that a resumed run takes the right value without any saved state, also when it is
extended. `plateau` alone has a memory.
"""

import fnmatch
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from glimpse.config import build
from glimpse.errors import UserError
from glimpse.muon import Muon

MUON = f"{Muon.__module__}.{Muon.__qualname__}"
# Their `weight` is a table of vectors or a gain, also where it has two or more dimensions.
NO_MATRICES = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Schedule:
    """A scheduler and when it steps: after each batch ("step"), each epoch, or by val/loss ("validation")."""

    scheduler: LRScheduler | ReduceLROnPlateau
    interval: str


def build_optimizer(network: nn.Module, config: Mapping[str, Any]) -> Optimizer:
    """The configured optimizer over the network's trainable parameters.

    Args:
        network: whose parameters it updates.
        config: `_target_` and arguments; `decay_all` is ours: false decays the weight matrices and
            kernels of `weights_of` alone, and keeps decay off biases, norms, embeddings and tables.

    Raises:
        UserError: the optimizer refuses its arguments.
    """
    arguments = dict(config)
    decay_all = arguments.pop("decay_all", True)
    parameters = [p for p in network.parameters() if p.requires_grad]
    weights = {id(p) for p in weights_of(network)}
    groups: list[dict[str, Any]] = [{"params": parameters}]
    if not decay_all and "weight_decay" in arguments:  # 0 too: a resumed run may change it
        groups = [
            {"params": [p for p in parameters if id(p) in weights]},
            {"params": [p for p in parameters if id(p) not in weights], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
    more: dict[str, Any] = {}
    if arguments["_target_"] == MUON:  # it cannot tell a matrix from a table by its shape
        more["no_matrices"] = [p for p in parameters if id(p) not in weights]
    optimizer = build("optimizer", arguments, groups, **more)
    assert isinstance(optimizer, Optimizer)
    return optimizer


def weights_of(network: nn.Module) -> list[nn.Parameter]:
    """The weight matrices and kernels of a network, in its order.

    They have two or more dimensions and "weight" in their own name, as `weight` of a linear layer or
    a convolution and `in_proj_weight` of attention have; what a parametrization makes them of counts
    too. Position embeddings, class tokens, tables of relative positions and gains of residual branches
    have other names. Embeddings and norms are left out, and what the network, or a part of it, names
    in `no_weight_decay()`, as timm's networks do (names or patterns, relative to the part).
    """
    spared = {
        pattern if not path else f"{path}.{pattern}"
        for path, module in network.named_modules()
        if callable(names := getattr(module, "no_weight_decay", None))
        for pattern in names()
    }
    found = []
    for name, parameter in network.named_parameters():
        path, _, own = name.rpartition(".")
        layer = network.get_submodule(path)
        if isinstance(layer, nn.utils.parametrize.ParametrizationList):
            own = path.rpartition(".")[2]  # <layer>.parametrizations.weight.original
        if (
            parameter.ndim >= 2
            and "weight" in own
            and not isinstance(layer, NO_MATRICES)
            and not any(fnmatch.fnmatchcase(name, pattern) for pattern in spared)
        ):
            found.append(parameter)
    return found


def _by_step(optimizer: Optimizer, factor: Callable[[int], float]) -> Schedule:
    return Schedule(LambdaLR(optimizer, factor), "step")


def constant(optimizer: Optimizer, *, total_steps: float) -> Schedule:
    """The optimizer's `lr` throughout."""
    return _by_step(optimizer, lambda step: 1.0)


def cosine(
    optimizer: Optimizer,
    *,
    total_steps: float,
    warmup_fraction: float,
    final_factor: float,
) -> Schedule:
    """Linear warmup over `warmup_fraction` of all steps, then half a cosine to `final_factor`·lr.

    Loshchilov and Hutter 2017, SGDR, equation 5, without restarts.
    """
    _require_end(total_steps, warmup_fraction)
    warmup_steps = round(warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * done)) / 2

    return _by_step(optimizer, factor)


def onecycle(
    optimizer: Optimizer,
    *,
    total_steps: float,
    warmup_fraction: float,
    start_factor: float,
    final_factor: float,
) -> Schedule:
    """Half a cosine up from `start_factor`·lr to lr, then down to `final_factor`·lr.

    Smith and Topin 2018, Super-Convergence, with fastai's cosine in place of straight lines;
    momentum stays as it is.
    """
    _require_end(total_steps, warmup_fraction)
    peak = max(1.0, warmup_fraction * total_steps)

    def between(first: float, last: float, done: float) -> float:
        return last + (first - last) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    def factor(step: int) -> float:
        if step < peak:
            return between(start_factor, 1.0, step / peak)
        return between(1.0, final_factor, (step - peak) / max(1.0, total_steps - peak))

    return _by_step(optimizer, factor)


def step(optimizer: Optimizer, *, total_steps: float, every: int, factor: float) -> Schedule:
    """Multiply by `factor` every `every` epochs."""
    if every < 1:
        raise UserError(f"scheduler.every={every}: expected a number of epochs, at least 1")
    return Schedule(LambdaLR(optimizer, lambda epoch: factor ** (epoch // every)), "epoch")


def plateau(optimizer: Optimizer, *, total_steps: float, patience: int, factor: float) -> Schedule:
    """Multiply by `factor` after `patience` epochs in which val/loss did not fall."""
    reduce = ReduceLROnPlateau(optimizer, patience=patience, factor=factor)
    return Schedule(reduce, "validation")


def _require_end(total_steps: float, warmup_fraction: float) -> None:
    """A schedule over the whole run needs to know its end, and warms up before it."""
    if math.isinf(total_steps):
        raise UserError(
            "scheduler: the run has no end; set trainer.max_epochs or trainer.max_steps"
        )
    if not 0 <= warmup_fraction < 1:
        raise UserError(
            f"scheduler.warmup_fraction={warmup_fraction}: expected at least 0 and less than 1"
        )
