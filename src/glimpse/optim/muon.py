"""One optimizer that uses Muon for the hidden weight matrices and AdamW for all other parameters.

Source: K. Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks. The update
of a matrix is its momentum with all singular values set to about one. A convolution kernel is
treated as a matrix (out, height × width × in), as in cifar10-airbench. AdamW updates the first
matrix if it reads pixels, the last matrix, kernels that read one channel each (depthwise
convolutions, which mix no channels), biases, norms, embeddings, tokens and tables of positions.

There are two ways to scale the update of a matrix. By default, Muon and AdamW share one learning
rate and one weight decay. Updates are scaled to the size of AdamW's (Liu et al. 2025, Muon is
Scalable for LLM Training, section 2.2), so that a schedule or a suggested learning rate fits both.
With a `matrix_lr`, matrices are treated as in cifar10-airbench: a matrix is rescaled to the norm of
an equally tall matrix with unit rows, has no weight decay, and moves by `matrix_lr` times the
orthogonal matrix. Throughout training, only the learning rate and the shape of a kernel then
determine how far it turns in a step, which suits networks that normalise after every convolution.

How ours differs from torch.optim.Muon, which takes matrices only and always computes in bf16: on a
processor without fast bf16 products, the iteration runs in fp32 (6 times as fast on such a CPU).

A GPU would spend most of the time waiting for the launch of so many small kernels. There, all
matrices of the same shape are updated together, and AdamW is fused. (On a CPU, three matrices of
256×2304 took a third longer together than one by one.) Fused AdamW could unscale fp16 gradients
inside its step, but Muon cannot. `_step_supports_amp_scaling` is therefore false for both.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from glimpse.data.transfer import is_queued
from glimpse.precision import bf16_hardware

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, chosen for its slope at zero (Jordan)
MOST_PIXEL_CHANNELS = 4  # a first kernel with at most this many input channels reads pixels


class Muon(AdamW):
    """Muon and AdamW in one optimizer.

    Parameter groups are split: first those that AdamW updates, then those that Muon updates, which
    are marked `is_muon`.

    Args:
        params: Parameter groups in the order of the network's layers.
        lr: Learning rate of both, or of AdamW alone if `matrix_lr` is given.
        matrix_lr: Learning rate of the matrices. A matrix then keeps the norm of an equally tall
            matrix with unit rows. A step moves it by at most about this fraction of its norm, and
            by √(columns / rows) of that if the matrix is taller than wide.
        momentum: Nesterov momentum of the matrices.
        num_iterations: Iterations of Newton and Schulz's method.
        betas: AdamW's betas.
        eps: AdamW's epsilon.
        weight_decay: Decoupled weight decay of both, or of AdamW alone if `matrix_lr` is given.
        no_matrices: Parameters that AdamW updates whatever their shape, such as embeddings, tokens
            and tables of relative positions.
        fused: AdamW's; None leaves the choice to torch.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        matrix_lr: float | None = None,
        momentum: float = 0.95,
        num_iterations: int = 5,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        no_matrices: Collection[Tensor] = (),
        fused: bool | None = None,
    ) -> None:
        given = list(params)
        apart = {id(p) for p in no_matrices}
        hidden = {
            id(p)
            for p in hidden_matrices([p for g in given for p in g["params"] if id(p) not in apart])
        }
        groups = []
        for is_muon in (False, True):
            for group in given:
                chosen = [p for p in group["params"] if (id(p) in hidden) == is_muon]
                if chosen:
                    groups.append(group | {"params": chosen, "is_muon": is_muon})
        super().__init__(groups, lr, (betas[0], betas[1]), eps, weight_decay, fused=fused)
        self._step_supports_amp_scaling = False
        for group in self.param_groups:
            if group["is_muon"]:
                group |= {"momentum": momentum, "num_iterations": num_iterations}
                group["keeps_norm"] = matrix_lr is not None
                group["lr"] = group["lr"] if matrix_lr is None else matrix_lr

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:  # clears the gradients of all groups
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

    @torch.no_grad()
    def _step_matrices(self, group: dict[str, Any]) -> None:
        alike: dict[object, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                state["step"] = torch.zeros(())  # AdamW requires it when it loads a state
            kind = (parameter.device, parameter.dtype, _matrix(parameter).shape)
            alike.setdefault(kind if is_queued(parameter.device) else id(parameter), []).append(
                parameter
            )
        for parameters in alike.values():
            self._step_alike(parameters, group)

    def _step_alike(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update several matrices of the same shape, or a single matrix."""
        rate, momentum = group["lr"], group["momentum"]
        aheads = []
        for parameter in parameters:
            assert parameter.grad is not None
            average = self.state[parameter]["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
            aheads.append(_matrix(parameter.grad.lerp(average, momentum)))
        found = torch.stack(aheads) if len(aheads) > 1 else aheads[0]
        updates = orthogonalised(found, group["num_iterations"])
        for parameter, update in zip(
            parameters, updates if len(aheads) > 1 else [updates], strict=True
        ):
            weights = _matrix(parameter)
            if group["keeps_norm"]:
                parameter.mul_(len(weights) ** 0.5 / weights.norm().clamp_min(1e-12))
                size = 1.0
            else:
                parameter.mul_(1 - rate * group["weight_decay"])
                size = 0.2 * max(weights.shape) ** 0.5
            parameter.add_(_like(update, parameter), alpha=-rate * size)


def orthogonalised(matrix: Tensor, num_iterations: int) -> Tensor:
    """Return the matrix (M, N), or each of (B, M, N), with its singular values set near one.

    After five steps, they are between 0.68 and 1.2, except those that were below 0.0015 of the norm
    of the matrix. These grow about 3.4 times a step and may remain small (0.004 to 0.05 for the
    smallest of a Gaussian 512×512). The singular vectors do not change. This is Newton and
    Schulz's iteration with Jordan's coefficients, which bring the singular values near one quickly
    and keep them there.
    """
    device = matrix.device.type
    found = matrix.to(torch.bfloat16 if bf16_hardware(device) else torch.float32)
    tall = found.shape[-2] > found.shape[-1]
    found = found.mT if tall else found
    norm = found.norm() if found.ndim == 2 else found.norm(dim=(1, 2), keepdim=True)
    found = found / (norm + 1e-7)  # no singular value above one
    if found.dtype == torch.float32 and found.shape[-1] >= 2 * found.shape[-2]:
        found = _all_steps(found @ found.mT, num_iterations) @ found
    else:
        for _ in range(num_iterations):
            found = _plus_product(found, _bent(found @ found.mT), found, beta=COEFFICIENTS[0])
    return (found.mT if tall else found).to(matrix.dtype)


def _plus_product(
    added: Tensor, left: Tensor, right: Tensor, *, beta: float, alpha: float = 1.0
) -> Tensor:
    """Return beta·added + alpha·left @ right, of matrices or of batches of them."""
    product = torch.addmm if added.ndim == 2 else torch.baddbmm
    return product(added, left, right, beta=beta, alpha=alpha)


def _bent(gram: Tensor) -> Tensor:
    """Return b·G + c·G² for the Gram matrix G: the factor of one iteration without its constant."""
    _, b, c = COEFFICIENTS
    return _plus_product(gram, gram, gram, beta=b, alpha=c)


def _all_steps(gram: Tensor, num_iterations: int) -> Tensor:
    """Return the factors of all iterations as one matrix, computed from the Gram matrix (…, M, M).

    For a wide matrix this halves the multiplications. Only fp32 is exact enough, because errors
    grow with each iteration.
    """
    whole = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    for i in range(num_iterations):
        step = _bent(gram)
        step.diagonal(dim1=-2, dim2=-1).add_(COEFFICIENTS[0])
        whole = step @ whole
        if i < num_iterations - 1:
            gram = step @ gram @ step
    return whole


def hidden_matrices(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Select the matrices and kernels of the hidden layers."""
    # (out, in) or (out, in, height, width)
    matrices = [p for p in parameters if p.ndim in (2, 4)]
    if not matrices:
        return []
    first = matrices[0]  # reads features if the layers before it are frozen
    reads_pixels = first.ndim == 2 or first.shape[1] <= MOST_PIXEL_CHANNELS
    between = matrices[int(reads_pixels) : -1]
    return [p for p in between if p.ndim == 2 or p.shape[1] > 1]


def _matrix(values: Tensor) -> Tensor:
    """Reshape (out, in, H, W) to (out, H·W·in), without a copy if channels-last; keep (out, in)."""
    return values if values.ndim == 2 else values.permute(0, 2, 3, 1).flatten(1)


def _like(matrix: Tensor, values: Tensor) -> Tensor:
    """Undo `_matrix`: reshape a matrix to the shape of `values`."""
    if values.ndim == 2:
        return matrix
    num_outputs, num_inputs, height, width = values.shape
    return matrix.view(num_outputs, height, width, num_inputs).permute(0, 3, 1, 2)
