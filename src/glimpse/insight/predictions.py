"""What a network answers on every image of a split: the one thing that all scores are computed from."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule
from glimpse.files import replacing
from glimpse.ranks import ranks


@dataclass(frozen=True)
class Predictions:
    """Answers on the N images of a split, in its order.

    `logits` is (N, K) float32, as the network gave them, so that classes it does not tell apart are
    equal here too; `labels` (N,) int64, the right answers.
    """

    split: str
    class_names: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def log_probabilities(self) -> NDArray[np.float32]:
        """(N, K) the logarithm of the softmax."""
        found: NDArray[np.float32] = torch.from_numpy(self.logits).log_softmax(1).numpy()
        return found

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the class with the highest probability; of equal ones the first."""
        found: NDArray[np.int64] = self.logits.argmax(1)
        return found

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(N,) the probability of the predicted class, in [0, 1]."""
        highest: NDArray[np.float32] = self.log_probabilities.max(1)
        return np.exp(highest)

    @property
    def losses(self) -> NDArray[np.float32]:
        """(N,) cross-entropy in nats, whatever loss the network was trained with."""
        of_label: NDArray[np.float32] = self.log_probabilities[np.arange(len(self)), self.labels]
        return -of_label

    @property
    def ranks(self) -> NDArray[np.int64]:
        """(N,) the place of the right class among the answers; 1 is right."""
        found: NDArray[np.int64] = ranks(
            torch.from_numpy(self.logits), torch.tensor(self.labels)
        ).numpy()
        return found

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) whether the predicted class is the right one."""
        is_right: NDArray[np.bool_] = self.predicted == self.labels
        return is_right


@torch.no_grad()
def predict(
    forward: Callable[[Tensor], Tensor],
    data: ImageDataModule,
    split: str,
    *,
    device: torch.device,
    shows_progress: bool = False,
) -> Predictions:
    """Put every image of a split through a network once, without augmentation.

    Args:
        forward: (B, C, H, W) normalised images on the device to logits (B, K); in evaluation mode.
        data: set up. Of a run in several processes each predicts its share; all get the whole.
        split: one of `data.splits`.
        device: of the network.
        shows_progress: whether a bar shows how far it is, where there is a terminal.
    """
    found, rows = [], []
    loader = data.batches.loader(split)
    for batch in tqdm(loader, f"predicting {split}", disable=None if shows_progress else True):
        moved = data.batches.to_network(data.transfer_batch_to_device(batch, device, 0))
        found.append(forward(moved.images).float().cpu())
        rows.append(batch.indices.cpu())
    answers, places = torch.cat(found).numpy(), torch.cat(rows).numpy()
    if data.trainer is not None and data.trainer.world_size > 1:
        answers, places = _of_all_processes(answers, places)
    # Processes take images in turn: back into the split's order.
    wanted = data.splits[split].rows
    order = np.empty(len(wanted), np.int64)
    order[np.argsort(wanted)] = np.argsort(places)
    return Predictions(split, data.spec.class_names, answers[order], data.labels(split))


def _of_all_processes(
    answers: NDArray[np.float32], places: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    shares: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = [(answers, places)]
    shares *= torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, (answers, places))
    return np.concatenate([a for a, _ in shares]), np.concatenate([p for _, p in shares])


def inputs_of(
    data: ImageDataModule, split: str, positions: NDArray[np.int64], *, device: torch.device
) -> Tensor:
    """Images of a split as the network sees them, not augmented: (B, C, H, W), normalised, on the device.

    Args:
        data: set up.
        split: one of `data.splits`.
        positions: (B,) their numbers in the split.
        device: of the network.
    """
    numbers = torch.from_numpy(positions)
    stored = Batch(torch.from_numpy(data.stored_images(split, positions)), numbers, numbers)
    return data.batches.to_network(data.transfer_batch_to_device(stored, device, 0)).images


def images_of(data: ImageDataModule, split: str, positions: NDArray[np.int64]) -> Tensor:
    """The same without the normalisation, to look at: (B, C, H, W) in [0, 1], on the CPU."""
    return data.batches.to_pixels(inputs_of(data, split, positions, device=torch.device("cpu")))


def names_of(data: ImageDataModule, split: str) -> list[str]:
    """What to call each image of a split: its file's path, or part and row where there is no file."""
    chosen = data.splits[split]
    paths = data.source_paths(chosen.part)
    if paths is not None:
        return [str(paths[row]) for row in chosen.rows]
    return [f"{chosen.part}[{row}]" for row in chosen.rows]


def write_predictions(predictions: Predictions, names: list[str], path: Path) -> None:
    """A CSV with a row for each image: image, actual and predicted class, their probabilities, the
    cross-entropy, and the place of the actual class among the answers."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ("image", "actual", "predicted", "probability", "probability_of_actual", "loss", "rank")
        )
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
        for name, actual, predicted, confidence, of_actual, loss, rank in columns:
            numbers = (f"{confidence:.6f}", f"{of_actual:.6f}", f"{loss:.6f}", rank)
            writer.writerow((name, classes[actual], classes[predicted], *numbers))
