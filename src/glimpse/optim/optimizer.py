"""The optimizer over a network's parameters, and the choice of the parameters that decay."""

import fnmatch
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from glimpse.config.build import build, parameters_of, require_target
from glimpse.errors import UserError
from glimpse.lean_imports import make_optimizers_without_compiler
from glimpse.optim.muon import Muon, hidden_matrices
from glimpse.own_methods import takes

MUON = f"{Muon.__module__}.{Muon.__qualname__}"
FUSED_ON_GPUS = (Adam, SGD)  # and their subclasses, such as AdamW and Muon
FUSED_OR_NOT = {"fused", "foreach", "differentiable"}  # arguments that decide it
# The `weight` of these layers is a table of vectors or a gain, even with two or more dimensions.
NO_MATRICES = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)


def build_optimizer(network: nn.Module, config: Mapping[str, Any]) -> Optimizer:
    """Build the configured optimizer over the network's trainable parameters.

    Args:
        network: The network to train.
        config: `_target_` and its arguments. `decay_all` is our own key: if false, weight decay
            applies only to the matrices and kernels that `weights_of` returns, and not to biases,
            norms, embeddings and tables.

    Raises:
        UserError: the optimizer rejects its arguments, or lacks what every run uses.
    """
    make_optimizers_without_compiler()
    arguments = dict(config)
    decay_all = arguments.pop("decay_all", True)
    parameters = [p for p in network.parameters() if p.requires_grad]
    weights = {id(p) for p in weights_of(network)}
    groups: list[dict[str, Any]] = [{"params": parameters}]
    # Even if the weight decay is 0: a resumed run may change it.
    if not decay_all and "weight_decay" in arguments:
        groups = [
            {"params": [p for p in parameters if id(p) in weights]},
            {"params": [p for p in parameters if id(p) not in weights], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
    if any(parameter.is_complex() for parameter in parameters) and "fused" in arguments:
        arguments["fused"] = None  # torch fuses real numbers only
    more: dict[str, Any] = {}
    if arguments["_target_"] == MUON:  # Muon cannot distinguish a matrix from a table by shape
        more["no_matrices"] = [p for p in parameters if id(p) not in weights]
    on_gpu = all(p.device.type == "cuda" and not p.is_complex() for p in parameters)
    if _can_be_fused(arguments) and on_gpu:
        more["fused"] = True  # one kernel in place of a dozen
    optimizer = build("optimizer", arguments, groups, **more)
    assert isinstance(optimizer, Optimizer)
    _require_usual(optimizer, str(arguments["_target_"]))
    return optimizer


def remark_on(network: nn.Module, config: Mapping[str, Any]) -> str | None:
    """Return a note for the user if Muon would update nothing in a network, such as a linear one."""
    if config["_target_"] != MUON or hidden_matrices(weights_of(network)):
        return None
    useless = " and optimizer.matrix_lr has no effect" if config.get("matrix_lr") else ""
    return (
        "optimizer=muon: this network has no matrices between its first and its last, so AdamW updates all "
        f"weights{useless}"
    )


def _require_usual(optimizer: Optimizer, target: str) -> None:
    """Require what Lightning and the schedules use: a step with a closure, and learning rates."""
    if not takes(optimizer.step, closure=None):
        raise UserError(
            f"optimizer._target_={target}: its step takes no closure, which computes the gradients: write "
            "def step(self, closure), and call loss = closure() before the update"
        )
    if not all("lr" in group for group in optimizer.param_groups):
        raise UserError(
            f"optimizer._target_={target}: its parameter groups have no lr, which schedules change: pass "
            '{"lr": lr} to super().__init__(params, …), and read group["lr"] in its step'
        )


def _can_be_fused(arguments: Mapping[str, Any]) -> bool:
    """Whether an optimizer can be fused on a GPU and its arguments do not decide this already."""
    found = require_target("optimizer", str(arguments["_target_"]))
    is_one = inspect.isclass(found) and issubclass(found, FUSED_ON_GPUS)
    return is_one and "fused" in parameters_of(found) and not arguments.keys() & FUSED_OR_NOT


def weights_of(network: nn.Module) -> list[nn.Parameter]:
    """Return the weight matrices and kernels of a network, in the order of its parameters.

    They have two or more dimensions and "weight" in their own name, such as `weight` of a linear
    layer or a convolution and `in_proj_weight` of attention. The original tensors of a parametrized
    weight count too. Position embeddings, class tokens, tables of relative positions and gains of
    residual branches have other names. The weights of embeddings and norms are excluded, as are
    parameters that the network or one of its modules lists in `no_weight_decay()`, as timm's
    networks do (names or patterns, relative to the module).
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
