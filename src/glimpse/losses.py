"""Losses that torch.nn does not have in the form the documents use, and the precision of every loss.

Each takes logits (B, K) and labels (B,) or, of mixed images, probabilities (B, K), as cross-entropy
does.

Source: E. Stevens, L. Antiga, T. Viehmann, Deep Learning with PyTorch, ch. 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALVES = (torch.float16, torch.bfloat16)


def exact_loss(loss: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss in fp32, whatever half type the network computes in; in fp64 where that does.

    The loss sees no autocast, so that none of its operations is taken down again.

    Args:
        loss: any, of logits and labels.
        logits: (B, K).
        labels: (B,), or (B, K) probabilities, which are brought to the type of the logits.
    """
    if logits.dtype in HALVES:
        logits = logits.float()
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
    if any(t.dtype in HALVES for t in (*loss.buffers(), *loss.parameters())):
        loss.float()  # such as weights of classes, which precision=bf16-true takes down
    with torch.autocast(logits.device.type, enabled=False):
        found: Tensor = loss(logits, labels)
    return found


class LogSoftmaxNLL(nn.Module):
    """Negative log-likelihood of log-softmax: the same number as cross-entropy on logits."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch."""
        log_probabilities = F.log_softmax(logits, dim=1)
        if labels.is_floating_point():
            return -(labels * log_probabilities).sum(1).mean()
        return F.nll_loss(log_probabilities, labels)


class SoftmaxMSE(nn.Module):
    """Squared error between softmax probabilities and the target, mean over all numbers.

    Its gradient vanishes where the network is confidently wrong; cross-entropy's does not.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch and classes."""
        if not labels.is_floating_point():
            labels = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return F.mse_loss(logits.softmax(dim=1), labels)
