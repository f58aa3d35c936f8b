"""Muon for the hidden weight matrices, AdamW for all else, as one optimizer.

Source: K. Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks. The update of
a matrix is its momentum with all singular values brought to about one, by torch.optim.Muon. A
convolution's kernel counts as a matrix (out, in × height × width), as in cifar10-airbench. First and
last matrix of a network, biases, norms and embeddings are AdamW's. Both share one rate and one
weight decay: updates are scaled to the size of AdamW's (Liu et al. 2025, Muon is Scalable for LLM
Training, section 2.2), so that a schedule, or a rate found, means the same to both.

Left out: fused AdamW, which would take over the scaling of fp16 gradients that Muon cannot.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim import AdamW


class Muon(AdamW):
    """Parameter groups are split: those of `AdamW`, then those of matrices, marked `is_muon`.

    Args:
        params: groups in the order of the network's layers.
        lr: of both.
        momentum: of the matrices, Nesterov's.
        num_iterations: of Newton and Schulz's method.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: of both, decoupled.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        num_iterations: int = 5,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        given = list(params)
        every = [p for group in given for p in group["params"]]
        # (out, in) or (out, in, height, width); a transformer's position embedding has three.
        hidden = {id(p) for p in [p for p in every if p.ndim in (2, 4)][1:-1]}
        groups = []
        for is_muon in (False, True):
            for group in given:
                chosen = [p for p in group["params"] if (id(p) in hidden) == is_muon]
                if chosen:
                    groups.append(group | {"params": chosen, "is_muon": is_muon})
        super().__init__(groups, lr, (betas[0], betas[1]), eps, weight_decay)
        for group in self.param_groups:
            if group["is_muon"]:
                group |= {"momentum": momentum, "num_iterations": num_iterations}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:  # it clears the gradients of all groups
            with torch.enable_grad():
                loss = closure()
        every = self.param_groups
        self.param_groups = [group for group in every if not group["is_muon"]]
        try:
            super().step()
        finally:
            self.param_groups = every
        for group in every:
            if group["is_muon"]:
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """torch.optim.Muon takes matrices only: it gets the kernels as such, and our state."""
        moved = [p for p in group["params"] if p.grad is not None]
        if not moved:
            return
        matrices = [p.detach().flatten(1) for p in moved]  # copies of channels-last kernels
        muon = torch.optim.Muon(
            matrices,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            ns_steps=group["num_iterations"],
            adjust_lr_fn="match_rms_adamw",
        )
        for matrix, parameter in zip(matrices, moved, strict=True):
            matrix.grad = parameter.grad.flatten(1)
            muon.state[matrix] = state = self.state[parameter]
            state.setdefault("step", torch.zeros(()))  # AdamW asks for it when it is loaded
        muon.step()  # type: ignore[no-untyped-call]
        for matrix, parameter in zip(matrices, moved, strict=True):
            if matrix.data_ptr() != parameter.data_ptr():
                parameter.detach().copy_(matrix.view_as(parameter))
