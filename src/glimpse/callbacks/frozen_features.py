"""A linear probe: compute the features of every image once, then train a head on them.

Source: Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes. The
backbone of `model=pretrained` is frozen in evaluation mode, so an image's features never change.
They replace the images in the data module, and an epoch costs no more than training a linear layer.
Every checkpoint holds the whole network, which classifies images. Features are stored on disk in
the dataset's cache folder, under a key made from the images, splits, weights and precision.
"""

import hashlib
import zipfile
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from glimpse.callbacks.finetune import require_one_process
from glimpse.data.module import data_of
from glimpse.errors import UserError
from glimpse.files import CannotWriteError, make_folder, replacing
from glimpse.progress_bar import tracked

Features = dict[str, NDArray[np.float32]]  # part of the dataset to (N, F) features


class FrozenFeatures(Callback):
    """Train the head of a pretrained network on features that are computed once.

    Raises:
        UserError: from `setup`, if several processes train.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Freeze the backbone before the optimizer is built, so that it holds the head alone."""
        if stage != "fit":
            return
        self.network = require_one_process(trainer, pl_module, "frozen_features")
        self.data = data_of(trainer)
        self.network.backbone.requires_grad_(False)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load or compute the features. Here the weights are final, even after a resume."""
        file = self.data.data_dir / ".cache" / f"features-{self._key(trainer)}.npz"
        found = _load(file)
        if not found:
            found = self._compute(trainer, pl_module.device)
            if self.data.cache and not self.data.embedded:
                _save(file, found)
        features = {part: torch.from_numpy(rows) for part, rows in found.items()}
        self.data.batches.replace_images(features)

    def _key(self, trainer: pl.Trainer) -> str:
        settings = (self.data.fingerprint, self.data.spec, trainer.precision)
        digest = hashlib.sha256(repr((*settings, self.network.architecture)).encode())
        of_input = {"scale": self.network.scale, "shift": self.network.shift}
        for tensor in (of_input | self.network.backbone.state_dict()).values():
            as_bytes = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(as_bytes.numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def _compute(self, trainer: pl.Trainer, device: torch.device) -> Features:
        """Compute the (N, F) float32 features of each part. Rows of images in no split are zero."""
        found: Features = {}
        splits = self.data.splits
        width = self.network.num_features
        for split in splits.values():
            last = max(int(s.rows.max()) for s in splits.values() if s.part == split.part)
            found[split.part] = np.zeros((last + 1, width), np.float32)
        self.network.eval()
        for name, split in splits.items():
            loader = self.data.batches.loader(name)
            for batch in tracked(
                loader,
                f"features, {name}",
                len(split.rows),
                unit="image",
                size=lambda batch: len(batch.indices),
            ):
                moved = self.data.transfer_batch_to_device(batch, device, 0)
                images = trainer.precision_plugin.convert_input(
                    self.data.batches.to_network(moved).images
                )
                with trainer.precision_plugin.forward_context():
                    features = self.network.features(images)
                found[split.part][batch.indices.cpu().numpy()] = features.float().cpu().numpy()
        self.network.train()
        return found


def _load(file: Path) -> Features:
    """The features stored by an earlier run; empty if there are none or they cannot be read."""
    try:
        with file.open("rb") as opened, np.load(opened) as stored:
            return dict(stored)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile):
        return {}


def _save(file: Path, features: Features) -> None:
    try:
        make_folder(file.parent)
        with replacing(file, flush=False) as partial:
            np.savez(partial, allow_pickle=False, **features)
    except CannotWriteError as error:
        raise UserError(f"{error}; type data.cache=false") from error
