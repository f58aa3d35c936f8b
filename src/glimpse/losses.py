"""Losses that torch.nn lacks in the form the documents use, and the precision of every loss.

Like cross-entropy, each loss takes logits (B, K) and either labels (B,) or, for mixed images,
probabilities (B, K).

Source: E. Stevens, L. Antiga, T. Viehmann, Deep Learning with PyTorch, ch. 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALVES = (torch.float16, torch.bfloat16)


def exact_loss(loss: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss in fp32 if the network uses a half type, and in fp64 if it uses fp64.

    Autocast is off inside the loss, so that it cannot lower the precision again.

    Args:
        loss: Any loss that takes logits and labels.
        logits: (B, K).
        labels: (B,), or (B, K) probabilities, which are converted to the type of the logits.
    """
    if logits.dtype in HALVES:
        logits = logits.float()
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
    if any(t.dtype in HALVES for t in (*loss.buffers(), *loss.parameters())):
        loss.float()  # for example class weights, which precision=bf16-true converts to bf16
    with torch.autocast(logits.device.type, enabled=False):
        found: Tensor = loss(logits, labels)
    return found


class LogSoftmaxNLL(nn.Module):
    """Negative log-likelihood of the log-softmax, which equals cross-entropy on the logits."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch."""
        log_probabilities = F.log_softmax(logits, dim=1)
        if labels.is_floating_point():
            return -(labels * log_probabilities).sum(1).mean()
        return F.nll_loss(log_probabilities, labels)


class SoftmaxMSE(nn.Module):
    """Mean squared error between the softmax probabilities and the target.

    Its gradient vanishes where the network is confidently wrong; that of cross-entropy does not.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch and the classes."""
        if not labels.is_floating_point():
            labels = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return F.mse_loss(logits.softmax(dim=1), labels)
