"""What a split's batches add up to: loss and correct answers, counted on the device."""

from typing import Any

import torch
from torch import Tensor

from glimpse.ranks import TOP_K, ranks


class Counts:
    """Sums over the batches of each split that is being counted; read once an epoch.

    Args:
        num_classes: of the labels. With more than five, correct answers among the top five count too.
    """

    def __init__(self, num_classes: int) -> None:
        self.has_top5 = num_classes > TOP_K
        self._totals: dict[str, Tensor] = {}
        self._num_images: dict[str, int] = {}

    def start(self, split: str, device: torch.device) -> None:
        """Begin at zero."""
        dtype = torch.float32 if device.type == "mps" else torch.float64  # which MPS lacks
        self._totals[split] = torch.zeros(3, dtype=dtype, device=device)
        self._num_images[split] = 0

    def add(self, split: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch. A mixed image counts for the class that has the largest share of it.

        Args:
            split: a split that was started.
            loss: (), the batch's mean.
            logits: (B, K).
            labels: (B,) int64, or (B, K) probabilities.
        """
        if labels.is_floating_point():
            labels = labels.argmax(1)
        size = len(labels)
        if split != "train" and self.has_top5:
            places = ranks(logits, labels)
            correct, in_top = (places == 1).sum(), (places <= TOP_K).sum()
        else:  # the same rule, in one pass
            correct = in_top = (logits.float().argmax(1) == labels).sum()
        self._totals[split] += torch.stack((loss * size, correct, in_top))
        self._num_images[split] += size

    def finish(self, split: str) -> Tensor:
        """(4,) summed loss, correct answers, correct ones in the top five, images; of this process."""
        totals, num_images = self._totals.pop(split), self._num_images.pop(split)
        return torch.cat((totals, totals.new_tensor([num_images])))

    def state_dict(self) -> dict[str, Any]:
        """The training split's sums so far, for a checkpoint inside an epoch."""
        totals = self._totals.get("train")
        return {
            "train_totals": None if totals is None else totals.cpu(),
            "train_images": self._num_images.get("train", 0),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on counting the training split where the checkpoint was written."""
        if state["train_totals"] is not None:
            self._totals["train"] = state["train_totals"].to(device)
            self._num_images["train"] = state["train_images"]
