"""Sums of loss and correct predictions over the batches of a split, kept on the device."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from glimpse.ranks import TOP_K, ranks


class Counts:
    """Running sums for each split, read once per epoch.

    Args:
        num_classes: Number of classes. With more than five, top-5 predictions are counted too.
    """

    def __init__(self, num_classes: int) -> None:
        self.has_top5 = num_classes > TOP_K
        self._totals: dict[str, Tensor] = {}
        self._num_images: dict[str, int] = {}

    def start(self, split: str, device: torch.device) -> None:
        """Set the sums of a split to zero."""
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._totals[split] = torch.zeros(3, dtype=dtype, device=device)
        self._num_images[split] = 0

    def add(self, split: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch. The label of a mixed image is the class with the largest share.

        Args:
            split: A split that was started.
            loss: (), the mean over the batch.
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
        """Return the sums of this process (4,): loss, top-1 correct, top-5 correct, images."""
        totals, num_images = self._totals.pop(split), self._num_images.pop(split)
        return torch.cat((totals, totals.new_tensor([num_images])))

    def state_dict(self) -> dict[str, Any]:
        """Return the current sums of the training split, for a checkpoint within an epoch."""
        totals = self._totals.get("train")
        return {
            "train_totals": None if totals is None else totals.cpu(),
            "train_images": self._num_images.get("train", 0),
        }

    def load_state_dict(self, states: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Continue the sums of the training split from those of one or more processes."""
        self._totals["train"] = (
            torch.stack([state["train_totals"] for state in states]).sum(0).to(device)
        )
        self._num_images["train"] = sum(state["train_images"] for state in states)
