"""Losses that torch.nn does not have in the form the documents use.

Each takes logits (B, K) and labels (B,) or, of mixed images, probabilities (B, K), as cross-entropy
does.

Source: E. Stevens, L. Antiga, T. Viehmann, Deep Learning with PyTorch, ch. 7.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class LogSoftmaxNLL(nn.Module):
    """Negative log-likelihood of log-softmax: the same number as cross-entropy on logits."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch."""
        log_probabilities = F.log_softmax(logits.float(), dim=1)
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
            labels = F.one_hot(labels, logits.shape[1]).float()
        return F.mse_loss(logits.float().softmax(dim=1), labels)
