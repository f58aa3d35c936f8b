"""A network's predictions for every image of a split. All scores are computed from them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule
from glimpse.distributed.gather import of_all_processes
from glimpse.files import write_csv
from glimpse.ranks import ranks
from glimpse.text import as_utf8

BLOCK = 2**20  # logits of which values are computed at a time
COLUMNS = ("image", "actual", "predicted", "probability", "probability_of_actual", "loss", "rank")


@dataclass(frozen=True)
class Prediction:
    """The probability of each class for one image."""

    probabilities: dict[str, float]

    @property
    def label(self) -> str:
        """The most likely class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    @property
    def probability(self) -> float:
        """The probability of the most likely class."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Predictions:
    """Predictions for the N images of a split, in the split's order: a sequence of `Prediction`.

    `logits` is (N, K) float32 and holds the raw outputs of the network, so that ties between
    classes are preserved. `labels` is (N,) int64 and holds the actual classes.
    """

    split: str
    class_names: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, number: int) -> Prediction: ...
    @overload
    def __getitem__(self, number: slice) -> list[Prediction]: ...
    def __getitem__(self, number: int | slice) -> Prediction | list[Prediction]:
        """The prediction for an image of the split, counted from 0, or a list for a slice."""
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        row = np.exp(torch.from_numpy(self.logits[number]).log_softmax(0).numpy()).tolist()
        return Prediction(dict(zip(self.class_names, row, strict=True)))

    def __iter__(self) -> Iterator[Prediction]:
        return (self[number] for number in range(len(self)))

    @property
    def log_probabilities(self) -> NDArray[np.float32]:
        """(N, K) logarithms of the softmax, as large as the logits and computed anew each time."""
        found: NDArray[np.float32] = torch.from_numpy(self.logits).log_softmax(1).numpy()
        return found

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) classes with the highest probability. If there is a tie, the first class wins."""
        found: NDArray[np.int64] = self.logits.argmax(1)
        return found

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """(N,) probabilities of the predicted class, in [0, 1]."""
        found: NDArray[np.float32] = np.exp(
            self._in_blocks(lambda logits, _: logits.log_softmax(1).amax(1))
        )
        return found

    @cached_property
    def losses(self) -> NDArray[np.float32]:
        """(N,) cross-entropies in nats, whatever loss the network was trained with.

        The loss is NaN if any logit of the image is NaN.
        """
        return self._in_blocks(partial(F.cross_entropy, reduction="none")) + 0  # no -0.0

    def worst(self, num_images: int) -> NDArray[np.int64]:
        """The positions of the images with the highest losses, the highest first."""
        found: NDArray[np.int64] = np.argsort(-self.losses, kind="stable")[:num_images]
        return found

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """(N,) ranks of the actual class among the predictions; rank 1 is a correct prediction."""
        return self._in_blocks(ranks)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) booleans: whether the predicted class is the actual one."""
        is_right: NDArray[np.bool_] = self.predicted == self.labels
        return is_right

    def _in_blocks(self, measure: Callable[[Tensor, Tensor], Tensor]) -> NDArray[Any]:
        """(N,) values of logits (B, K) and labels (B,), so that no copy of all logits is made."""
        size = max(1, BLOCK // len(self.class_names))
        logits, labels = torch.from_numpy(self.logits), torch.tensor(self.labels)
        blocks = zip(torch.split(logits, size), torch.split(labels, size), strict=True)
        found: NDArray[Any] = torch.cat([measure(*block) for block in blocks]).numpy()
        return found


@torch.no_grad()
def predict(
    forward: Callable[[Tensor], Tensor], data: ImageDataModule, split: str, *, device: torch.device
) -> Predictions:
    """Run a network on every image of a split once, without augmentation.

    Args:
        forward: Maps (B, C, H, W) normalised images on the device to logits (B, K), in evaluation
            mode.
        data: The data after `setup`. In a run with several processes, each process predicts its
            share, and all of them receive the complete result.
        split: One of `data.splits`.
        device: The device of the network.
    """
    wanted = data.splits[split].rows
    order = np.argsort(wanted)
    in_order = wanted[order]
    answers, places = np.empty((len(order), data.spec.num_classes), np.float32), []
    for batch in data.batches.loader(split):
        moved = data.batches.to_network(data.transfer_batch_to_device(batch, device, 0))
        size = len(batch.indices) if batch.share else 0
        rows = batch.indices.cpu()[:size].numpy()
        places.append(order[np.searchsorted(in_order, rows)])
        answers[places[-1]] = forward(moved.images).float().cpu()[:size].numpy()
    if data.trainer is not None and data.trainer.world_size > 1:
        own = np.concatenate(places)
        for share, theirs in of_all_processes((answers[own], own)):
            answers[theirs] = share
    return Predictions(split, data.spec.class_names, answers, data.labels(split))


def inputs_of(
    data: ImageDataModule, split: str, positions: NDArray[np.int64], *, device: torch.device
) -> Tensor:
    """Images of a split preprocessed for the network, without augmentation.

    Args:
        data: The data after `setup`.
        split: One of `data.splits`.
        positions: (B,) positions of the images in the split.
        device: The device of the network.

    Returns:
        (B, C, H, W) normalised images on the device.
    """
    numbers = torch.from_numpy(positions)
    stored = Batch(torch.from_numpy(data.stored_images(split, positions)), numbers, numbers)
    return data.batches.to_network(data.transfer_batch_to_device(stored, device, 0)).images


def images_of(data: ImageDataModule, split: str, positions: NDArray[np.int64]) -> Tensor:
    """Like `inputs_of`, but for display: (B, C, H, W) in [0, 1], not normalised, on the CPU."""
    return data.batches.to_pixels(inputs_of(data, split, positions, device=torch.device("cpu")))


def names_of(data: ImageDataModule, split: str) -> list[str]:
    """The name of each image of a split: its file path, or part and row if there is no file."""
    chosen = data.splits[split]
    paths = data.source_paths(chosen.part)
    if paths is not None:
        return [as_utf8(paths[row]) for row in chosen.rows]
    return [f"{chosen.part}[{row}]" for row in chosen.rows]


def write_predictions(predictions: Predictions, names: list[str], path: Path) -> None:
    """Write `COLUMNS` as a CSV, with one row per image; the loss is the cross-entropy."""
    classes = predictions.class_names
    columns = zip(
        names,
        predictions.labels,
        predictions.predicted,
        predictions.confidence,
        np.exp(-predictions.losses),
        predictions.losses,
        predictions.ranks,
        strict=True,
    )
    rows = (
        (name, classes[actual], classes[predicted], *(f"{one:.6f}" for one in numbers), rank)
        for name, actual, predicted, *numbers, rank in columns
    )
    write_csv(path, COLUMNS, rows)
