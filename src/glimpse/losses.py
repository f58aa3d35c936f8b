"""Losses that torch.nn does not have in the form the documents use. Each takes logits.

Source: E. Stevens, L. Antiga, T. Viehmann, Deep Learning with PyTorch, ch. 7.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class LogSoftmaxNLL(nn.Module):
    """Negative log-likelihood of log-softmax: the same number as cross-entropy on logits."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, K) and labels (B,) to the mean over the batch."""
        return F.nll_loss(F.log_softmax(logits.float(), dim=1), labels)


class SoftmaxMSE(nn.Module):
    """Squared error between softmax probabilities and the one-hot target, mean over all numbers.

    Its gradient vanishes where the network is confidently wrong; cross-entropy's does not.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, K) and labels (B,) to the mean over the batch and classes."""
        probabilities = logits.float().softmax(dim=1)
        return F.mse_loss(probabilities, F.one_hot(labels, logits.shape[1]).float())
