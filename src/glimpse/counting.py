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
        by_class: Whether to count the images of each class too, except in training.
    """

    def __init__(self, num_classes: int, *, by_class: bool) -> None:
        self.has_top5 = num_classes > TOP_K
        self._num_classes = num_classes
        self._by_class = by_class
        self._totals: dict[str, Tensor] = {}
        self._num_images: dict[str, int] = {}
        self._divisors: dict[str, Tensor | int] = {}  # of the mean loss
        self._of_classes: dict[str, Tensor] = {}  # (2, K): correct images, and all images

    def start(self, split: str, device: torch.device) -> None:
        """Set the sums of a split to zero."""
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._totals[split] = torch.zeros(3, dtype=dtype, device=device)
        self._num_images[split] = self._divisors[split] = 0
        if self._by_class and split != "train":
            shape = (2, self._num_classes)
            self._of_classes[split] = torch.zeros(shape, dtype=torch.int64, device=device)

    def add(
        self, split: str, loss: Tensor, logits: Tensor, labels: Tensor, *, divisor: Tensor | int
    ) -> None:
        """Add a batch. The label of a mixed image is the class with the largest share.

        Args:
            split: A split that was started.
            loss: (), the mean over the batch.
            logits: (B, K).
            labels: (B,) int64, or (B, K) probabilities.
            divisor: The divisor of the mean: the number of images, unless classes have weights.
        """
        if labels.is_floating_point():
            labels = labels.argmax(1)
        size = len(labels)
        if split in self._of_classes:
            of_class = labels[:, None] == torch.arange(self._num_classes, device=labels.device)
            is_right = logits.float().argmax(1) == labels
            self._of_classes[split] += torch.stack(
                ((of_class & is_right[:, None]).sum(0), of_class.sum(0))
            )
        loss_sum, correct, in_top = self._totals[split].unbind()
        if isinstance(divisor, Tensor):
            loss_sum += loss * divisor
        else:
            loss_sum.add_(loss, alpha=divisor)
        if split != "train" and self.has_top5:
            places = ranks(logits, labels)
            correct += (places == 1).sum()
            in_top += (places <= TOP_K).sum()
        else:  # the same rule, in one pass
            correct += (logits.float().argmax(1) == labels).sum()
        self._num_images[split] += size
        self._divisors[split] += divisor

    def num_images(self, split: str) -> int:
        """The images of a split that were added so far."""
        return self._num_images[split]

    def finish(self, split: str) -> Tensor:
        """Return this process's sums (5,): loss, top-1 correct, top-5 correct, images, divisors.

        Top-5 is 0 where it is not counted: in training, and with five classes or fewer.
        """
        totals, num_images = self._totals.pop(split), self._num_images.pop(split)
        divisor = float(self._divisors.pop(split))
        return torch.cat((totals, totals.new_tensor([num_images, divisor])))

    def finish_classes(self, split: str) -> Tensor | None:
        """Return the correct and all images of each class (2, K) int64; None if not counted."""
        return self._of_classes.pop(split, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the current sums of the training split, for a checkpoint within an epoch."""
        totals = self._totals.get("train")
        return {
            "train_totals": None if totals is None else totals.to("cpu", copy=True),
            "train_images": self._num_images.get("train", 0),
            "train_divisor": float(self._divisors.get("train", 0)),
        }

    def load_state_dict(self, states: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Continue the sums of the training split from those of one or more processes."""
        self._totals["train"] = (
            torch.stack([state["train_totals"] for state in states]).sum(0).to(device)
        )
        self._num_images["train"] = sum(state["train_images"] for state in states)
        self._divisors["train"] = sum(state["train_divisor"] for state in states)
