"""The one rule for whether an answer is right, and how far down it stands: also where logits are equal.

Left out: which of two equal classes is meant. The one of lower index stands first, as for argmax.
"""

import torch
from torch import Tensor

TOP_K = 5


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) the place of the right class among the answers; 1 is right.

    It is 1 + the classes with a greater logit + those of lower index with an equal one, so that it is 1
    exactly where argmax finds the label. NaN counts as infinity, as for argmax. Logits are compared
    in fp32, which is how predictions are kept.

    Args:
        logits: (B, K).
        labels: (B,) whole numbers.
    """
    logits = logits.float().nan_to_num(torch.inf, torch.inf, -torch.inf)
    right = labels[:, None]
    of_right = logits.gather(1, right)
    stands_first = torch.arange(logits.shape[1], device=logits.device) < right
    ahead = (logits > of_right) | ((logits == of_right) & stands_first)
    return ahead.sum(1) + 1
