"""Loaders whose batch order is a function of (seed, epoch).

If the images are one array, a batch is one gather, without per-image Python code or worker
processes; a small enough array is kept on the GPU. Images that are decoded on demand come from
decoded_rows.py, in the same order. Loading can start at any batch, so that a run can resume in the
middle of an epoch.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glimpse.data.sampling import ClassSampling, SampledRows
from glimpse.data.transfer import sent

GPU_SHARE = 0.3  # of a GPU's free memory for all images; the network needs the rest


class Batch(NamedTuple):
    """A batch of B images.

    `images` is (B, H, W, C) uint8 until the batch is on the device, and then (B, C, H, W) float32,
    normalised, as the network's input. `indices` (B,) are the indices of the images in their part.
    With `data.sampling`, each repetition of an image within an epoch has another index
    (`SampledRows`). `share` is the weight of this process's mean in the mean over all processes. It
    differs from 1 if the processes have different numbers of images, and is 0 for images that only
    keep a process busy.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    share: float = 1.0


class EpochOrder:
    """The assignment of `num_images` images to batches, sharded by rank.

    In training, the order is a permutation drawn from (seed, epoch), of all images or of those that
    `sampling` draws. Each occurs exactly once. All ranks together take the batches that one rank
    would take with `batch_size * world_size`, so that the batches do not depend on the number of
    ranks. A last batch of a single image is merged with the previous one,
    because batch norm cannot compute a variance from it. For the same reason, a rank gets two
    images or none of a last batch. In evaluation, the images come in order. A rank without images
    gets other images with a share of 0, because all ranks must take part.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        training: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        sampling: ClassSampling | None = None,
    ) -> None:
        self.sampling = sampling
        self.num_images = num_images
        self.batch_size = batch_size
        self.training = training
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Return the number of batches per epoch on this rank."""
        return len(self._sizes())

    def _sizes(self) -> list[int]:
        """Sizes of the batches: of all ranks together in training, of this rank in evaluation."""
        num_images, size = self.num_images, self.batch_size
        if self.training:
            size *= self.world_size
        else:
            num_images = len(range(self.rank, num_images, self.world_size))
        whole, rest = divmod(num_images, size)
        sizes = [size] * whole + [rest] * (rest > 0)
        if self.training and len(sizes) > 1 and sizes[-1] == 1:
            sizes[-2:] = [sizes[-2] + 1]
        return sizes or [0] * (self.num_images > 0)

    def _of_this_rank(self, size: int) -> range:
        """The positions of this rank's images in a training batch of all ranks."""
        num_ranks = min(self.world_size, max(1, size // min(2, self.batch_size)))
        return range(self.rank, size, num_ranks) if self.rank < num_ranks else range(0)

    def shares(self, start: int = 0) -> list[float]:
        """The share of each batch, from batch `start` on."""
        sizes = self._sizes()[start:]
        if not self.training:
            return [float(size > 0) for size in sizes]
        return [len(self._of_this_rank(size)) * self.world_size / size for size in sizes]

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Yield the positions (B,) int64 of each batch in an epoch, from batch `start` on."""
        if self.training:
            order = self._drawn(epoch)
        else:
            order = torch.arange(self.num_images)[self.rank :: self.world_size]
        for mine in torch.split(order, self._sizes())[start:]:
            if self.training:
                places = self._of_this_rank(len(mine))
                mine = mine[places.start : places.stop : places.step]
            yield mine if len(mine) else torch.arange(min(2, self.num_images))

    def _drawn(self, epoch: int) -> Tensor:
        """The images of an epoch of training, in random order."""
        [key] = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(key >> np.uint64(1)))
        order = torch.randperm(self.num_images, generator=generator)
        return order if self.sampling is None else self.sampling.of_epoch(epoch)[order]


# Yields the batches of some rows, in this order.
Fetch = Callable[[Iterator[Tensor]], Iterator[Batch]]


class BatchLoader:
    """A loader for some rows of a part. It can start at any batch and saves its position.

    Args:
        rows: (M,) int64, the images of this split, as indices into the part; or an object that maps
            the numbers of a `ClassSampling` to such rows.
        order: Assignment of these images to batches.
        fetch: Converts an iterator of index tensors to batches, in the same order.
        current_epoch: Returns the epoch; called at the start of each iteration.
    """

    def __init__(
        self,
        rows: Tensor | SampledRows,
        order: EpochOrder,
        fetch: Fetch,
        *,
        current_epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.rows = rows
        self.order = order
        self.fetch = fetch
        self.current_epoch = current_epoch
        self._epoch = 0
        self._next_batch = 0
        self._resumed = False

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.current_epoch()
        # Start in the middle only after `load_state_dict`, and only in that epoch. After an epoch
        # that ended early (`trainer.limit_train_batches`), the next one starts at its first batch.
        start = self._next_batch if self._resumed and self._epoch == epoch else 0
        self._epoch, self._next_batch, self._resumed = epoch, start, False
        num_batches = len(self)
        positions = self.order.batches(epoch, start)
        chosen = (self.rows[position] for position in positions)
        shares = self.order.shares(start)
        for number, batch in enumerate(self.fetch(chosen), start + 1):
            self._next_batch = number % num_batches
            share = shares[number - start - 1]
            yield batch if share == 1 else batch._replace(share=share)

    def state_dict(self, *, is_over: bool = False) -> dict[str, int]:
        """Return the index of the next batch and its epoch, for a checkpoint.

        Args:
            is_over: Whether the epoch has ended, perhaps before its last batch.
        """
        return {"next_batch": 0 if is_over else self._next_batch, "epoch": self._epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the position in a checkpoint."""
        self._epoch, self._next_batch = state["epoch"], state["next_batch"]
        self._resumed = True


class ArrayRows:
    """Batches gathered from one array: (N, H, W, C) uint8 images, (N,) int64 labels.

    Args:
        images: Images in memory, memory-mapped from a file, or on a GPU. Batches are gathered
            there.
        labels: Labels on the same device.
        pin_memory: Whether to copy batches to page-locked memory, for the transfer to a GPU.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, pin_memory: bool) -> None:
        self.shape = images.shape[1:]
        self.images = images.reshape(len(images), -1)  # a row is contiguous
        self.labels = labels
        self.pin_memory = pin_memory

    def __call__(self, rows: Iterator[Tensor]) -> Iterator[Batch]:
        for chosen in rows:
            chosen = sent(chosen, self.images.device)
            images = self.images.index_select(0, chosen).view(-1, *self.shape)
            labels = self.labels.index_select(0, chosen)
            if self.pin_memory:
                images, labels = images.pin_memory(), labels.pin_memory()
            yield Batch(images, labels, chosen)


def fits_on_gpu(num_bytes: int, device: torch.device, *, taken: int = 0) -> bool:
    """Whether an array may be kept on a GPU.

    Together with the arrays that are already there (`taken` bytes), it may use at most `GPU_SHARE`
    of the memory that was free before them.
    """
    if device.type != "cuda":
        return False
    free, _total = torch.cuda.mem_get_info(device)
    return taken + num_bytes <= GPU_SHARE * (taken + free)
