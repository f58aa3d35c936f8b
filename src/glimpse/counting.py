"""The loss and the correct predictions of a split, summed on the device over its batches.

On a CPU, the predictions of several small batches wait, and are compared with their labels together.
Comparing those of each batch would take a tenth of a linear network's step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from glimpse.data.transfer import is_queued
from glimpse.distributed.gather import summed
from glimpse.losses import widest_float
from glimpse.ranks import TOP_K, ranks

MOST_WAITING = 2**17  # logits


class Counts:
    """Running sums for each split, read once per epoch.

    Args:
        num_classes: Number of classes. With more than five, top-5 predictions are counted too.
        by_class: Whether to count the images of each class too, except in training.

    Attributes:
        recall: With `by_class`, the latest recall of each class, by split; None without images.
        num_scored: The images of the latest pass over each split.
    """

    def __init__(self, num_classes: int, *, by_class: bool) -> None:
        self.has_top5 = num_classes > TOP_K
        self._num_classes = num_classes
        self._by_class = by_class
        self.recall: dict[str, list[float | None]] = {}
        self.num_scored: dict[str, int] = {}
        self._sums: dict[str, _Sums] = {}

    def start(self, split: str, device: torch.device) -> None:
        """Set the sums of a split to zero."""
        is_scored = split != "train"
        of_classes = None
        if self._by_class and is_scored:
            of_classes = torch.zeros((2, self._num_classes), dtype=torch.int64, device=device)
        totals = torch.zeros(3, dtype=widest_float(device), device=device)
        self._sums[split] = _Sums(totals, of_classes, has_top5=self.has_top5 and is_scored)

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
        self._sums[split].add(loss, logits, labels, divisor)

    def num_images(self, split: str) -> int:
        """The images of a split that were added so far."""
        return self._sums[split].num_images

    def finish(self, split: str) -> dict[str, float]:
        """The mean loss and the accuracies of a split, over all processes, which call this together.

        Top-5 accuracy is left out in training, and with five classes or fewer.
        """
        sums = self._sums.pop(split)
        totals = sums.compared()
        mine = torch.cat((totals, totals.new_tensor([sums.num_images, float(sums.divisor)])))
        loss, correct, in_top, size, divisor = summed(mine).tolist()
        self.num_scored[split] = int(size)
        if sums.of_classes is not None:
            pairs = zip(*summed(sums.of_classes).tolist(), strict=True)
            self.recall[split] = [hits / images if images else None for hits, images in pairs]
        found = {"loss": loss / (divisor or 1), "acc": correct / max(size, 1)}
        return found | ({"top5": in_top / max(size, 1)} if sums.has_top5 else {})

    def state_dict(self) -> dict[str, Any]:
        """Return the current sums of the training split, for a checkpoint within an epoch."""
        sums = self._sums.get("train")
        return {
            "train_totals": None if sums is None else sums.compared().to("cpu", copy=True),
            "train_images": 0 if sums is None else sums.num_images,
            "train_divisor": 0.0 if sums is None else float(sums.divisor),
        }

    def load_state_dict(self, states: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Continue the sums of the training split from those of one or more processes."""
        totals = torch.stack([state["train_totals"] for state in states]).sum(0)
        self._sums["train"] = _Sums(
            totals.to(device, widest_float(device)),
            num_images=sum(state["train_images"] for state in states),
            divisor=sum(state["train_divisor"] for state in states),
        )


class _Sums:
    """The running sums of a split.

    Args:
        totals: (3,): loss, top-1 correct, top-5 correct.
        of_classes: (2, K) int64, the correct and all images of each class; None if they are not
            counted.
        has_top5: Whether top-5 predictions are counted.
        num_images: The number of images so far.
        divisor: The divisor of the mean loss so far.
    """

    def __init__(
        self,
        totals: Tensor,
        of_classes: Tensor | None = None,
        *,
        has_top5: bool = False,
        num_images: int = 0,
        divisor: Tensor | float = 0,
    ) -> None:
        self.of_classes = of_classes
        self.has_top5 = has_top5
        self.num_images = num_images
        self.divisor = divisor
        self.totals = totals
        self._loss = totals[0]  # a view, into which each loss is added
        self._waiting: list[tuple[Tensor, Tensor]] = []  # logits and labels to be compared
        self._num_waiting = 0  # logits

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, divisor: Tensor | int) -> None:
        """Add a batch, as `Counts.add` does."""
        if labels.is_floating_point():
            labels = labels.argmax(1)
        if isinstance(divisor, Tensor):
            self._loss += loss * divisor
        else:
            self._loss.add_(loss, alpha=divisor)
        self.num_images += len(labels)
        self.divisor += divisor
        self._waiting.append((logits, labels))
        self._num_waiting += logits.numel()
        if self._num_waiting >= MOST_WAITING or is_queued(logits.device):
            self.compared()

    def compared(self) -> Tensor:
        """Return the totals after the predictions that wait have been compared."""
        if len(self._waiting) == 1:  # as always on a GPU, which needs no copy
            self._compare(*self._waiting[0])
        elif self._waiting:
            self._compare(*map(torch.cat, zip(*self._waiting, strict=True)))
        self._waiting, self._num_waiting = [], 0
        return self.totals

    def _compare(self, logits: Tensor, labels: Tensor) -> None:
        _, correct, in_top = self.totals.unbind()
        if self.has_top5:
            places = ranks(logits, labels)
            in_top += (places <= TOP_K).sum()
            is_right = places == 1
        else:  # the same rule, in one pass
            is_right = logits.float().argmax(1) == labels
        correct += is_right.sum()
        if self.of_classes is not None:
            classes = torch.arange(self.of_classes.shape[1], device=labels.device)
            of_class = labels[:, None] == classes
            self.of_classes += torch.stack(((of_class & is_right[:, None]).sum(0), of_class.sum(0)))
