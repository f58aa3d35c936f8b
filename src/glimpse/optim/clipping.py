"""Gradient clipping by norm or by value, for `trainer.gradient_clip_val`.

Source: Pascanu, Mikolov and Bengio 2013, On the difficulty of training recurrent neural networks,
section 3.2. How ours differs from Lightning's: it also clips for fused optimizers in mixed
precision, and it computes the norm of fp16 gradients in fp32, where it cannot overflow.
"""

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from glimpse.losses import HALVES


def clip_gradients(
    optimizer: Optimizer, limit: float, *, by_value: bool, scaler: GradScaler | None = None
) -> None:
    """Clip the gradients of an optimizer's parameters in place. Parameters without one are skipped.

    Args:
        optimizer: The optimizer, before its step.
        limit: Maximum norm over all gradients together, or maximum absolute value of each element.
        by_value: Whether `limit` applies to each element.
        scaler: The loss scaler, if the loss is scaled. A fused optimizer unscales its gradients in
            its step; here they are unscaled before, and the scaler records it.
    """
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        scaler.unscale_(optimizer)
    parameters = [
        p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    if not parameters:
        return
    if not by_value:
        norm = _norm([p.grad for p in parameters])
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return
    for dtype in {p.grad.dtype for p in parameters}:
        alike = [p for p in parameters if p.grad.dtype == dtype]
        torch.nn.utils.clip_grad_value_(alike, min(limit, torch.finfo(dtype).max))


def _norm(gradients: list[Tensor]) -> Tensor:
    if all(gradient.dtype not in HALVES for gradient in gradients):
        return torch.nn.utils.get_total_norm(gradients)
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
