"""The optimizer over a network's parameters, and which of them are weights that decay."""

import fnmatch
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from glimpse.config.build import build
from glimpse.optim.muon import Muon

MUON = f"{Muon.__module__}.{Muon.__qualname__}"
# Their `weight` is a table of vectors or a gain, also where it has two or more dimensions.
NO_MATRICES = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)


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
