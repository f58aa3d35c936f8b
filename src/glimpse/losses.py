"""Losses that torch.nn does not have in this form, and the precision of every loss.

Like cross-entropy, each loss takes logits (B, K) and either labels (B,) or, for mixed images,
probabilities (B, K). Each has a buffer `weight`: None, or a weight for each class (K,). As in
torch.nn.CrossEntropyLoss, the mean is then weighted: divided by the sum of the labels' weights, or
for mixed images by their number.

Sources: E. Stevens, L. Antiga, T. Viehmann, Deep Learning with PyTorch, ch. 7; for the focal loss,
T.-Y. Lin et al. 2017, Focal Loss for Dense Object Detection, equations 4 and 5.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glimpse.errors import UserError

HALVES = (torch.float16, torch.bfloat16)


def widest_float(device: torch.device) -> torch.dtype:
    """The widest float type of a device: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def exact_loss(loss: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss in fp32 if the network uses a half type, and in fp64 if it uses fp64.

    Autocast is off inside the loss, so that it cannot lower the precision again. The tensors of the
    loss must be in fp32 too (`keep_exact`).

    Args:
        loss: Any loss that takes logits and labels.
        logits: (B, K).
        labels: (B,), or (B, K) probabilities, which are converted to the type of the logits.
    """
    if logits.dtype in HALVES:
        logits = logits.float()
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
    kind = logits.device.type
    if not torch.is_autocast_enabled(kind):
        return loss(logits, labels)  # type: ignore[no-any-return]
    with torch.autocast(kind, enabled=False):
        return loss(logits, labels)  # type: ignore[no-any-return]


def keep_exact(loss: nn.Module) -> None:
    """Convert the tensors of a loss back to fp32, for example class weights that
    precision=bf16-true converted to bf16. Their values stay rounded to bf16."""
    if any(t.dtype in HALVES for t in (*loss.buffers(), *loss.parameters())):
        loss.float()


class Weighted(nn.Module):
    """A loss with the buffer `weight`: None, or a weight for each class (K,)."""

    weight: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", None)


class LogSoftmaxNLL(Weighted):
    """Negative log-likelihood of the log-softmax, which equals cross-entropy on the logits."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch."""
        return _negative_mean(F.log_softmax(logits, dim=1), labels, self.weight)


class Focal(Weighted):
    """Cross-entropy times (1 - p)^gamma, where p is the probability of the image's class.

    Easy images, whose p is near 1, hardly count, so the many images of a frequent class do not
    outweigh the few hard ones of a rare class.

    Args:
        gamma: The exponent, at least 0; 0 is cross-entropy. The paper uses 2.
    """

    def __init__(self, *, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch."""
        log_probabilities = F.log_softmax(logits, dim=1)
        # From the log, so that 1 - p keeps its digits where p is near 1. At 0, a root has no slope.
        others = (-torch.expm1(log_probabilities)).clamp_min(torch.finfo(logits.dtype).tiny)
        return _negative_mean(others**self.gamma * log_probabilities, labels, self.weight)


def _negative_mean(values: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
    """Return minus the mean over the batch of the labels' values (B, K), weighted by class."""
    if labels.is_floating_point():
        weighted = labels if weight is None else labels * weight
        return -(weighted * values).sum(1).mean()
    return F.nll_loss(values, labels, weight=weight)


class SoftmaxMSE(Weighted):
    """Mean squared error between the softmax probabilities and the target.

    Its gradient vanishes where the network is confidently wrong; that of cross-entropy does not.
    With class weights, the error of an image counts by the weight of its class.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch and the classes."""
        is_mixed = labels.is_floating_point()
        shares = labels if is_mixed else F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        if self.weight is None:
            return F.mse_loss(logits.softmax(dim=1), shares)
        of_image = shares @ self.weight.to(shares)
        errors = ((logits.softmax(dim=1) - shares) ** 2).mean(1)
        return (errors * of_image).sum() / (len(labels) if is_mixed else of_image.sum())


DIVIDE_BY_WEIGHTS = (nn.CrossEntropyLoss, nn.NLLLoss, Weighted)


def divisor(loss: nn.Module, labels: Tensor) -> Tensor | int:
    """The divisor of the mean of a batch: the sum of its weights, or the number of images.

    The mean over a split is the sum of means times divisors, divided by the sum of divisors. It
    therefore does not depend on the size of the batches.
    """
    weight = getattr(loss, "weight", None) if isinstance(loss, DIVIDE_BY_WEIGHTS) else None
    if weight is None or labels.is_floating_point():
        return len(labels)
    return weight.index_select(0, labels).sum()  # type: ignore[no-any-return]


def use_class_weights(loss: nn.Module, weights: Sequence[float]) -> None:
    """Give a loss a weight for each class.

    The weights follow from the configuration, so checkpoints do not contain them.

    Raises:
        UserError: the loss has no class weights.
    """
    if not hasattr(loss, "weight"):
        raise UserError(
            f"loss.class_weights: {type(loss).__name__} has no class weights; type loss=cross_entropy or "
            "another loss with the attribute weight"
        )
    tensor = torch.tensor(list(weights), dtype=torch.float32)
    if "weight" in vars(loss):  # a plain attribute, such as None, which a buffer cannot replace
        del loss.weight
    loss.register_buffer("weight", tensor, persistent=False)
