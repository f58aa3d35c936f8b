"""The single definition of a correct prediction and of the rank of the correct class.

Ties are covered too: of two classes with equal logits, the one with the lower index ranks first, as
in argmax. Left out: any other way of breaking ties.
"""

import torch
from torch import Tensor

TOP_K = 5


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the rank (B,) of the correct class of each image; 1 is a correct prediction.

    The rank is 1 + the number of classes with a greater logit + the number of classes with an equal
    logit and a lower index, so it is 1 exactly where argmax returns the label. NaN counts as
    infinity, as in argmax. Logits are compared in fp32, the type in which predictions are stored.

    Args:
        logits: (B, K).
        labels: (B,) integers.
    """
    logits = logits.float().nan_to_num(torch.inf, torch.inf, -torch.inf)
    right = labels[:, None]
    of_right = logits.gather(1, right)
    stands_first = torch.arange(logits.shape[1], device=logits.device) < right
    ahead = (logits > of_right) | ((logits == of_right) & stands_first)
    return ahead.sum(1) + 1
