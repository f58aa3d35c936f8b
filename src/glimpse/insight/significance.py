"""Whether two networks that answered the same images differ by more than chance."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest


class McNemar(NamedTuple):
    """Images that only the first, or only the second, got right, and how probable a difference as
    large or larger is where both are equally good."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """McNemar's test (McNemar 1947, Psychometrika 12), exact and two-sided: images that both got right
    or both wrong say nothing; of the others each falls to either side with probability 1/2.

    Args:
        first: (N,) whether the first network was right about each image.
        second: likewise, of the same images in the same order.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = binomtest(only_first, discordant).pvalue if discordant else 1.0
    return McNemar(only_first, only_second, float(p_value))
