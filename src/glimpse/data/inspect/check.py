"""Check a dataset step by step, from its files to a loss, to show which step fails and why.

This corresponds to fastai's `DataBlock.summary` (docs.fast.ai, data.block). `glimpse data check`
uses it to check one sample, one batch, and then every image. Left out: the configured network,
which `python train.py check=true` tests with one batch.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glimpse.data.decode import PixelFormat, decode, reading
from glimpse.data.inspect.headers import broken_files, header
from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import (
    COLOURS,
    Arrays,
    Files,
    Part,
    Source,
    check_form,
    check_labels,
    wrong_labels,
)
from glimpse.errors import UnreadableImageError, UserError
from glimpse.text import by


@dataclass(frozen=True)
class Step:
    """The result of a step, or its error."""

    name: str
    found: str = ""
    error: Exception | None = None


class DatasetCheck:
    """Steps that run in order; each step stores the input of the next one.

    Args:
        data: A data module, neither prepared nor set up.
        device: The device to which a batch is moved.
    """

    def __init__(self, data: ImageDataModule, *, device: torch.device) -> None:
        self.data = data
        self.device = device
        self.source: Source | None = None
        self.wanted: PixelFormat | None = None  # the format of files; None until known
        self._has_decoded_all = False
        self.pixels: NDArray[np.uint8]  # (H, W, C), the sample
        self.batch: Batch  # as stored, then on the device
        self.as_evaluated: Batch
        self.as_trained: Batch

    def steps(self) -> Iterator[Step]:
        """Run the steps and stop after the first failure.

        They follow the first training image from its file to the array, then a batch from there to
        a loss and its gradient.
        """
        sample = (self.listed, self.opened, self.sized, self.decoded, self.labelled, self.stored)
        batch = (self.gathered, self.moved, self.normalised, self.augmented, self.learned)
        for method in (*sample, *batch):
            try:
                yield Step(method.__name__, method())
            except Exception as error:  # a dataset's own code may raise any error
                yield Step(method.__name__, error=error)
                return

    # One sample ---------------------------------------------------------------------------------

    def listed(self) -> str:
        """Check that the dataset's files exist and that they contain images and labels."""
        self.data.require_files()
        source = self.data.read()
        check_form(source)
        self.source = source
        parts = [f"{name} {len(part.labels):,}" for name, part in self.parts.items()]
        kind = "files" if isinstance(self._train, Files) else "images stored as pixels"
        return f"{', '.join(parts)} {kind}; {len(source.class_names)} classes"

    def opened(self) -> str:
        """Read the header of the first file."""
        if isinstance(self._train, Arrays):
            return "nothing to open: the dataset contains pixels"
        path = self._train.paths[self._row]
        found = header(path)
        turned = ", rotated or mirrored by EXIF" if found.turned else ""
        size = f"{path.stat().st_size:,} bytes"
        return f"{path}: {size}, {found.format}, {found.mode}, {by(found.size)}{turned}"

    def sized(self) -> str:
        """Determine the common size of all images, which a batch requires."""
        if isinstance(self._train, Arrays):
            height, width, channels = self._train.images.shape[1:]
            return f"{by((width, height))} {COLOURS[channels]}"
        wanted = self.wanted = self.data.pixel_format(self._found)
        how = f"fitted by data.fit={wanted.fit}" if wanted.fit else "as in the files"
        return f"{by((wanted.width, wanted.height))} {COLOURS[wanted.channels]}, {how}"

    def decoded(self) -> str:
        """Decode the sample's pixels."""
        if isinstance(self._train, Arrays):
            self.pixels = self._train.images[0]
        else:
            assert self.wanted is not None
            self.pixels = decode(self._train.paths[self._row], self.wanted)
        return _described(self.pixels)

    def labelled(self) -> str:
        """Check that every image has a valid label, and return the label of the sample."""
        names = self._found.class_names
        for part, content in self.parts.items():
            check_labels(content, len(names), part)
        label = int(self._train.labels[self._row])
        return f"{label}, {names[label]}"

    def stored(self) -> str:
        """Check that the cache, which is built if necessary, is intact and has the sample's pixels.

        The result also describes the splits.
        """
        self.data.prepare_data()
        contents = self.data.contents
        self._has_decoded_all = contents.is_new and not contents.num_skipped
        self.data.setup()
        self.data.verify_cache()
        part = self.data.part("train")
        if isinstance(part, Files):
            return f"not stored, decoded on demand; {self.data.describe()}"
        if not np.array_equal(part.images[0], self.pixels):
            raise UserError(
                "the cache does not contain the same pixels as the file: delete the folder "
                f"{self.data.data_dir / '.cache'} to decode all images again"
            )
        return f"row 0 of {by(part.images.shape)}, identical pixels; {self.data.describe()}"

    # One batch ----------------------------------------------------------------------------------

    def gathered(self) -> str:
        """Load the first batch of the first epoch."""
        self.batch = next(iter(self.data.batches.loader("train", training=True)))
        return f"images {_described(self.batch.images)}; labels {_described(self.batch.labels)}"

    def moved(self) -> str:
        """Move the batch to the device."""
        self.batch = self.data.transfer_batch_to_device(self.batch, self.device, 0)
        return str(self.batch.images.device)

    def normalised(self) -> str:
        """Compute the network's input in evaluation."""
        self.as_evaluated = self.data.batches.to_network(self.batch)
        images = self.as_evaluated.images
        if not images.isfinite().all():
            raise UserError(
                f"data.normalize={self.data.normalize} gives pixels that are not finite (mean "
                f"{self.data.spec.mean}, std {self.data.spec.std}): type data.normalize=none"
            )
        return f"{_described(images)}, mean {images.mean():.3f}"

    def augmented(self) -> str:
        """Compute the network's input in training."""
        self.as_trained = self.data.batches.to_network(self.batch, training=True, epoch=0)
        if self.data.augment is None:
            return "nothing to do (augment=none)"
        images = self.as_trained.images
        return f"{self.data.augment.label}: {_described(images)}, mean {images.mean():.3f}"

    def learned(self) -> str:
        """Run a linear model forward and backward; with zero weights, its loss is ln(classes)."""
        images = self.as_trained.images.flatten(1)
        linear = nn.Linear(images.shape[1], self.data.spec.num_classes, device=self.device)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        loss = nn.functional.cross_entropy(linear(images), self.as_trained.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        assert linear.weight.grad is not None
        gradient = linear.weight.grad.norm().item()
        return (
            f"linear model, forward and backward: loss {loss.item():.4f}, gradient {gradient:.3g}"
        )

    # Every image --------------------------------------------------------------------------------

    @property
    def parts(self) -> dict[str, Part]:
        """Return the parts that `listed` found; empty if it failed."""
        return self.source.parts() if self.source else {}

    def faults(self) -> Iterator[str]:
        """Decode every file, or check the labels of pixels, and yield one line for each fault.

        Files are not decoded again if `stored` has just decoded all of them for the cache.
        """
        for name, part in self.parts.items():
            if isinstance(part, Arrays):
                num_classes = len(self._found.class_names)
                for row in wrong_labels(part, num_classes):
                    label = part.labels[row]
                    yield f"{name}[{row}] has the label {label}, expected 0 to {num_classes - 1}"
            elif not self._has_decoded_all:
                yield from broken_files(part.paths, self.wanted, num_workers=self.data.num_workers)

    @cached_property
    def _row(self) -> int:
        """The first training image; where others are skipped, the first that can be read."""
        if isinstance(self._train, Files) and self.data.skip_unreadable:
            for row, path in enumerate(self._train.paths):
                with suppress(UnreadableImageError), reading(path) as image:
                    image.load()
                    return row
        return 0

    @property
    def _found(self) -> Source:
        assert self.source is not None
        return self.source

    @property
    def _train(self) -> Part:
        return self._found.train


def _described(values: Tensor | NDArray[np.uint8]) -> str:
    """Describe shape, dtype and range."""
    dtype = str(values.dtype).removeprefix("torch.")
    return f"{tuple(values.shape)} {dtype}, {values.min().item():.4g} to {values.max().item():.4g}"
