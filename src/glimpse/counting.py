"""Sums of loss and correct predictions over the batches of a split, kept on the device.

On a CPU, the predictions of several small batches wait, and are compared with their labels together.
To compare each batch would take a tenth of the step of a linear network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glimpse.data.transfer import is_queued
from glimpse.ranks import TOP_K, ranks

MOST_WAITING = 2**17  # logits


@dataclass
class _Sums:
    """The sums of a split.

    Attributes:
        totals: (3,) float64: loss, top-1 correct, top-5 correct.
        num_images: The number of images.
        divisor: The divisor of the mean loss.
        of_classes: (2, K) int64: the correct images of each class, and all of them; None if they
            are not counted.
        waiting: Logits and labels that have not been compared yet.
    """

    totals: Tensor
    num_images: int = 0
    divisor: Tensor | int = 0
    of_classes: Tensor | None = None
    waiting: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loss = self.totals[0]  # a view, into which each loss is added
        self.num_waiting = 0  # logits


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
        self._sums: dict[str, _Sums] = {}
        self._of_classes: dict[str, Tensor] = {}  # of finished splits, until they are read

    def start(self, split: str, device: torch.device) -> None:
        """Set the sums of a split to zero."""
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        sums = self._sums[split] = _Sums(torch.zeros(3, dtype=dtype, device=device))
        if self._by_class and split != "train":
            shape = (2, self._num_classes)
            sums.of_classes = torch.zeros(shape, dtype=torch.int64, device=device)

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
        sums = self._sums[split]
        if isinstance(divisor, Tensor):
            sums.loss += loss * divisor
        else:
            sums.loss.add_(loss, alpha=divisor)
        sums.num_images += len(labels)
        sums.divisor += divisor
        sums.waiting.append((logits, labels))
        sums.num_waiting += logits.numel()
        if sums.num_waiting >= MOST_WAITING or is_queued(logits.device):
            self._compare(split)

    def _compare(self, split: str) -> None:
        """Count the correct predictions among those that wait."""
        sums = self._sums[split]
        waiting, sums.waiting, sums.num_waiting = sums.waiting, [], 0
        if not waiting:
            return
        # A GPU's predictions do not wait, and need no copy.
        logits, labels = (
            waiting[0] if len(waiting) == 1 else map(torch.cat, zip(*waiting, strict=True))
        )
        if sums.of_classes is not None:
            of_class = labels[:, None] == torch.arange(self._num_classes, device=labels.device)
            is_right = logits.float().argmax(1) == labels
            sums.of_classes += torch.stack(((of_class & is_right[:, None]).sum(0), of_class.sum(0)))
        _, correct, in_top = sums.totals.unbind()
        if split != "train" and self.has_top5:
            places = ranks(logits, labels)
            correct += (places == 1).sum()
            in_top += (places <= TOP_K).sum()
        else:  # the same rule, in one pass
            correct += (logits.float().argmax(1) == labels).sum()

    def num_images(self, split: str) -> int:
        """The images of a split that were added so far."""
        return self._sums[split].num_images

    def finish(self, split: str) -> Tensor:
        """Return this process's sums (5,): loss, top-1 correct, top-5 correct, images, divisors.

        Top-5 is 0 where it is not counted: in training, and with five classes or fewer.
        """
        self._compare(split)
        sums = self._sums.pop(split)
        if sums.of_classes is not None:
            self._of_classes[split] = sums.of_classes
        rest = sums.totals.new_tensor([sums.num_images, float(sums.divisor)])
        return torch.cat((sums.totals, rest))

    def finish_classes(self, split: str) -> Tensor | None:
        """Return the correct and all images of each class (2, K) int64, after `finish`; None if
        they are not counted."""
        return self._of_classes.pop(split, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the current sums of the training split, for a checkpoint within an epoch."""
        if "train" not in self._sums:
            return {"train_totals": None, "train_images": 0, "train_divisor": 0.0}
        self._compare("train")
        sums = self._sums["train"]
        return {
            "train_totals": sums.totals.to("cpu", copy=True),
            "train_images": sums.num_images,
            "train_divisor": float(sums.divisor),
        }

    def load_state_dict(self, states: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Continue the sums of the training split from those of one or more processes."""
        totals = torch.stack([state["train_totals"] for state in states]).sum(0)
        self._sums["train"] = _Sums(
            totals.to(device),
            sum(state["train_images"] for state in states),
            sum(state["train_divisor"] for state in states),
        )
