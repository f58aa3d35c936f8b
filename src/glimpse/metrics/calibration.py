"""The expected calibration error, by the same rule as `glimpse evaluate`."""

import torch
from torch import Tensor
from torchmetrics import Metric

from glimpse.insight.scores import NUM_BINS


class CalibrationError(Metric):
    """The expected calibration error, in [0, 1]; 0 is perfect.

    It is the mean absolute difference between accuracy and confidence over bins of confidence,
    weighted by the number of images in each bin (Guo et al. 2017, On Calibration of Modern Neural
    Networks, section 4). torchmetrics counts a confidence of exactly 1 in a separate bin; here it
    belongs to the highest bin.

    Args:
        num_bins: The number of bins of equal width.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    gaps: Tensor
    num_images: Tensor

    def __init__(self, num_bins: int = NUM_BINS) -> None:
        super().__init__()
        if num_bins < 1:
            raise ValueError(f"num_bins={num_bins}, expected at least 1")
        self.num_bins = num_bins
        self.add_state("gaps", torch.zeros(num_bins), dist_reduce_fx="sum")
        self.add_state("num_images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch: probabilities (B, K) and labels (B,)."""
        confidence, predicted = preds.max(1)
        gap = (confidence - (predicted == target).float()).to(self.gaps)
        places = (confidence * self.num_bins).ceil().long().clamp(1, self.num_bins) - 1
        which = torch.nn.functional.one_hot(places, self.num_bins).to(self.gaps)
        self.gaps = self.gaps + gap @ which
        self.num_images = self.num_images + len(target)

    def compute(self) -> Tensor:
        """Return a value in [0, 1]; NaN without images."""
        return self.gaps.abs().sum() / self.num_images
