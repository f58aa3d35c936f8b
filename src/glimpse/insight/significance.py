"""Test whether the accuracies of two networks differ significantly: over images, or over seeds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, ttest_ind_from_stats


class McNemar(NamedTuple):
    """The result of McNemar's test.

    `only_first` and `only_second` count the images that only one of the networks classified
    correctly. `p_value` is the probability of a difference at least this large if both are equally
    accurate.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """McNemar's exact two-sided test (McNemar 1947, Psychometrika 12).

    Images that both networks got right or both got wrong carry no information. Under the null
    hypothesis, each of the other images is equally likely to be correct for either network.

    Args:
        first: (N,) whether the first network was correct on each image.
        second: The same for the second network, with the same images in the same order.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = binomtest(only_first, discordant).pvalue if discordant else 1.0
    return McNemar(only_first, only_second, float(p_value))


def welch(first: tuple[float, float, int], second: tuple[float, float, int]) -> float | None:
    """The p-value of Welch's two-sided t-test (Welch 1947, Biometrika 34) for equal means.

    It is None if all runs of a network are equal, for both networks, and the means differ: on few
    images, the noise of the seeds may be hidden by rounding.

    Args:
        first: The mean, the sample standard deviation and the number of runs, two or more.
        second: The same for the second network.
    """
    if first[1] == second[1] == 0:  # the test divides by it
        return 1.0 if first[0] == second[0] else None
    return float(ttest_ind_from_stats(*first, *second, equal_var=False).pvalue)
