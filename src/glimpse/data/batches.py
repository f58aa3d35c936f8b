"""The batches of a dataset, from its splits to the network's input, on any device.

The stages of a batch: array or files -> loader -> device -> augmented -> [0, 1] -> normalised, as
(B, C, H, W) float32.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glimpse.data.augment.base import Draws, resized
from glimpse.data.decoded_rows import DecodedRows
from glimpse.data.division import Division
from glimpse.data.loader import ArrayRows, Batch, BatchLoader, EpochOrder, Fetch, fits_on_gpu
from glimpse.data.preprocess import Preprocess
from glimpse.data.sampling import ClassSampling, SampledRows
from glimpse.data.spec import Files, ImageSpec
from glimpse.data.transfer import sent
from glimpse.threads import cores_of_each

if TYPE_CHECKING:
    from glimpse.data.module import ImageDataModule

NUM_LOOKED_AT = 5000  # images, enough to represent a dataset
PIXELS_LOOKED_AT = 64 * 64  # of an image; of larger ones, fewer are looked at


class Batches:
    """The batches of a dataset after its division.

    Args:
        data: The dataset, whose settings and contents are taken over.
        division: Its splits, its labels, and the size and normalisation of the network's input.
    """

    def __init__(self, data: "ImageDataModule", division: Division) -> None:
        self.spec = division.spec
        self.scored_split = "test"
        self.training_size: tuple[int, int] | None = None  # if training images are reduced
        self._parts = data.contents.parts
        self._stored = data.contents.format
        self._labels = division.labels
        self._splits = division.splits
        self._batch_size = data.batch_size
        self._global_batch_size = data.global_batch_size
        self._seed = data.seed
        self._augment = data.augment
        self._sampling = data.sampling
        self._num_workers = data.num_decoders
        self._preprocess = Preprocess(self.spec)
        self._memory_format = torch.contiguous_format
        self._num_scored: int | None = None
        self._features: dict[str, Tensor] = {}
        self._on_gpu: dict[tuple[str, torch.device], ArrayRows] = {}
        self._encoded_paths: dict[str, NDArray[np.bytes_]] = {}  # quick to pass to a process
        self._trainer: pl.Trainer | None = None
        self.chosen: Callable[[Batch], Batch] = _whole

    # Settings of a run ---------------------------------------------------------------------------

    def train_with(self, trainer: pl.Trainer | None) -> None:
        """Use the processes, the device and the epoch of this trainer; None: one process on the
        CPU."""
        self._trainer = trainer

    def see_as(self, spec: ImageSpec) -> None:
        """From now on, resize and normalise images as `spec` states."""
        self.spec = spec
        self._preprocess = Preprocess(spec)

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """From now on, return images in this memory layout."""
        self._memory_format = memory_format

    def train_at(self, size: tuple[int, int] | None) -> None:
        """From now on, train on images of this height and width in pixels; None: the full size."""
        self.training_size = size

    def train_on(self, chosen: Callable[[Batch], Batch] | None) -> None:
        """From now on, train on the images that `chosen` returns of each augmented and normalised
        batch; None: on the whole batch."""
        self.chosen = chosen or _whole

    def score(self, split: str, *, num_images: int | None = None) -> None:
        """Choose the images that `scored` returns.

        Args:
            split: Name of a split.
            num_images: Use only this many images, the first that the first epoch trains on; None:
                all.
        """
        self.scored_split = split
        self._num_scored = num_images

    def replace_images(self, features: Mapping[str, Tensor]) -> None:
        """From now on, return features (N, F) of each part instead of its images."""
        self._features = dict(features)

    @property
    def are_features(self) -> bool:
        """Whether batches contain features instead of images."""
        return bool(self._features)

    # Loaders -------------------------------------------------------------------------------------

    def scored(self) -> BatchLoader:
        """Return the images that `score` chose, each exactly once, without augmentation."""
        return self.loader(self.scored_split, num_images=self._num_scored)

    def loader(
        self,
        split: str,
        *,
        training: bool = False,
        num_images: int | None = None,
    ) -> BatchLoader:
        """Return this process's batches of a split.

        Args:
            split: Name of a split.
            training: Whether to divide images equally between processes, in a random order that
                changes in each epoch.
            num_images: As in `score`.
        """
        trainer = self._trainer
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        part, rows = self._splits[split].part, self._splits[split].rows
        if num_images is not None and num_images < len(rows):
            whole = EpochOrder(len(rows), batch_size=len(rows), training=True, seed=self._seed)
            rows = rows[np.sort(next(whole.batches(0))[:num_images].numpy())]

        def fetch(rows: Iterator[Tensor]) -> Iterator[Batch]:  # evaluated again in every epoch
            return self._fetch(part, device)(rows)

        sampling = None
        own_rows = torch.from_numpy(rows)
        chosen: Tensor | SampledRows = own_rows
        if training and self._sampling != "shuffle":
            labels = self._labels[part]
            sampling = ClassSampling(labels[rows], self._sampling, seed=self._seed)
            fetch = partial(_fetch_sampled, fetch, len(labels))
            chosen = SampledRows(own_rows, len(labels))
        order = EpochOrder(
            len(rows),
            batch_size=self.batch_size,
            training=training,
            seed=self._seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            sampling=sampling,
        )
        return BatchLoader(
            chosen, order, fetch, current_epoch=lambda: self.epoch if training else 0
        )

    @property
    def batch_size(self) -> int:
        """Images per batch of each process."""
        if self._global_batch_size is None:
            return self._batch_size
        num_processes = self._trainer.world_size if self._trainer else 1
        return self._global_batch_size // num_processes

    def _fetch(self, name: str, device: torch.device) -> ArrayRows | DecodedRows:
        """Return the source of a part's batches: the GPU's memory, an array, or files."""
        part = self._parts[name]
        labels = torch.from_numpy(self._labels[name])
        pin_memory = device.type == "cuda"
        if name in self._features:
            return ArrayRows(self._features[name], labels, pin_memory=pin_memory)
        if (name, device) in self._on_gpu:
            return self._on_gpu[name, device]
        if isinstance(part, Files):
            if name not in self._encoded_paths:
                self._encoded_paths[name] = np.array([os.fsencode(path) for path in part.paths])
            return DecodedRows(
                self._encoded_paths[name],
                labels,
                self._stored,
                num_workers=self._num_decoders(),
                pin_memory=pin_memory,
            )
        images = torch.from_numpy(part.images)
        taken = sum(rows.images.nbytes for (_, on), rows in self._on_gpu.items() if on == device)
        if not fits_on_gpu(images.nbytes, device, taken=taken):
            return ArrayRows(images, labels, pin_memory=pin_memory)
        rows = ArrayRows(images.to(device), labels.to(device), pin_memory=False)
        self._on_gpu[name, device] = rows
        return rows

    def _num_decoders(self) -> int:
        """Decoding processes of this process."""
        num_devices = self._trainer.num_devices if self._trainer else 1
        if self._num_workers is None:
            return cores_of_each(num_devices)
        return min(self._num_workers, max(1, self._num_workers // num_devices))

    @property
    def epoch(self) -> int:
        """The epoch for order and draws; with `trainer.overfit_batches` always the first."""
        if self._trainer is None or self._trainer.overfit_batches > 0:  # type: ignore[attr-defined]
            return 0
        return self._trainer.current_epoch

    # From bytes to the network's input -----------------------------------------------------------

    def to_network(self, batch: Batch, *, training: bool = False, epoch: int = 0) -> Batch:
        """Convert a batch (B, H, W, C) uint8 to the network's input (B, C, H, W) float32.

        Labels stay (B,) int64. If an augmentation mixes them in training, they become
        (B, num_classes) float32 probabilities. Features pass through unchanged.
        """
        if batch.images.ndim == 2:
            return batch
        images, labels = batch.images.permute(0, 3, 1, 2), batch.labels
        size = (self.spec.height, self.spec.width)
        if training and self.training_size is not None:
            size = self.training_size
        if training and self._augment is not None:
            draws = Draws(batch.indices, seed=self._seed, epoch=epoch)
            classes = self.spec.num_classes
            images, labels = self._augment.batch(images, labels, size, draws, classes)
        else:
            images = resized(images, size)
        return batch._replace(images=self._normalised(images), labels=labels)

    def _normalised(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W) uint8 to float32, in the network's memory layout."""
        if self._preprocess.mean.device != images.device:
            self._preprocess.to(images.device)
        images = images.contiguous(memory_format=self._memory_format)
        if images.shape[1] == 1 and self._memory_format == torch.contiguous_format:
            # With a single channel, the strides of either layout count as contiguous. Convolutions
            # choose their algorithm by the strides, and small ones are slower in channels-last.
            images = images.squeeze(1).unsqueeze(1)
        return self._preprocess.normalised(images)

    def some_training_images(self) -> Tensor:
        """Return about 5,000 training images of all classes, normalised but not augmented.

        There are fewer if they have more than 64×64 pixels, so that they fit into memory.
        """
        loader = self.loader("train", training=True)
        share = min(1.0, PIXELS_LOOKED_AT / (self.spec.height * self.spec.width))
        num_batches = math.ceil(NUM_LOOKED_AT * share / self.batch_size)
        batches = itertools.islice(loader, num_batches)
        return torch.cat([self.to_network(batch).images for batch in batches])

    def to_pixels(self, images: Tensor) -> Tensor:
        """Undo the normalisation for display: (B, C, H, W), clipped to [0, 1]."""
        mean = torch.tensor(self.spec.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.spec.std, device=images.device).view(1, -1, 1, 1)
        return (images.float() * std + mean).clamp(0, 1)


def _whole(batch: Batch) -> Batch:
    return batch


def _fetch_sampled(fetch: Fetch, part_size: int, rows: Iterator[Tensor]) -> Iterator[Batch]:
    """Fetch the rows of `SampledRows`, and give each batch their numbers as indices."""
    for_batches, for_indices = itertools.tee(rows)
    batches = fetch(numbers % part_size for numbers in for_batches)
    for batch, numbers in zip(batches, for_indices, strict=True):
        yield batch._replace(indices=sent(numbers, batch.indices.device))
