"""Pictures of a run, in its figures/ and in TensorBoard: a batch as the network sees it, every few
epochs its first layer and its answers on some validation images, at the end what it confuses, what it
gets most wrong, and the curves."""

from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from glimpse.classifier import ImageClassifier
from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule
from glimpse.files import subfolder
from glimpse.insight.confusion import confusion_matrix, most_confused
from glimpse.insight.first_layer import first_weights, kernel_grid
from glimpse.insight.predictions import Predictions, images_of, inputs_of, predict
from glimpse.lightning_compat import IS_FIRST_PROCESS
from glimpse.plots.curves import draw_epochs
from glimpse.plots.mistakes import draw_answers, draw_confusion, draw_most_confused
from glimpse.plots.save import save_pixels
from glimpse.runs.folder import epochs_of

NUM_TRAINING_IMAGES = 64
NUM_ANSWERED = 16  # validation images, the same ones each time
NUM_LOSSES = 24
SHOWN_SIDE = 64  # pixels; smaller images are enlarged to about this


class Pictures(Callback):
    """Draw what a person would look at; `callbacks.pictures=null` leaves all but the curves out.

    Args:
        every_n_epochs: between pictures of the first layer and of answers; also after the first epoch.
    """

    def __init__(self, *, every_n_epochs: int) -> None:
        self.every_n_epochs = every_n_epochs
        self._started = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if self._started:
            return
        self._started = True
        if trainer.global_step or not _draws(trainer):
            return
        if batch.images.ndim == 2:  # features have no picture
            return
        images = _data(trainer).batches.to_pixels(batch.images[:NUM_TRAINING_IMAGES].detach()).cpu()
        factor = max(1, SHOWN_SIDE // max(images.shape[-2:]))
        images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        grid = make_grid(images, nrow=8, padding=2, pad_value=1.0) * 255
        _save(trainer, "train_batch", grid.to(torch.uint8))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the first epoch and every few, from what is validated: EMA's weights where there are."""
        epoch = trainer.current_epoch + 1
        if trainer.sanity_checking or not _draws(trainer):
            return
        if epoch > 1 and epoch % self.every_n_epochs:
            return
        assert isinstance(pl_module, ImageClassifier)
        weights = first_weights(pl_module.network, pl_module.spec)
        if weights is not None:
            _save(trainer, "first_layer", kernel_grid(weights))
        data = _data(trainer)
        if not data.batches.are_features:
            self._draw_answers(trainer, pl_module, data, f"after epoch {epoch}")

    def _draw_answers(
        self, trainer: pl.Trainer, classifier: ImageClassifier, data: ImageDataModule, when: str
    ) -> None:
        labels = data.labels("val")
        positions = np.random.default_rng(0).permutation(len(labels))[:NUM_ANSWERED]
        with torch.no_grad():
            seen = inputs_of(data, "val", positions, device=classifier.device)
            logits = _forward(trainer, classifier, seen)
        answers = logits.float().cpu().numpy()
        some = Predictions("val", data.spec.class_names, answers, labels[positions])
        path = _path(trainer, "answers")
        draw_answers(
            some,
            np.arange(len(positions)),
            lambda chosen: images_of(data, "val", positions[chosen]),
            f"validation images, {when}",
            path,
        )
        _show(trainer, path)

    def draw_result(self, trainer: pl.Trainer, classifier: ImageClassifier) -> None:
        """Of the weights that the run keeps: confusion, examples of it, and the highest losses.

        All on the validation set: what is looked at and mended should not be the test set. In a run of
        several processes, all of them call this. Where validation is limited, nothing is drawn.
        """
        if not isinstance(trainer.limit_val_batches, float) or trainer.limit_val_batches != 1.0:
            return  # 1 is one batch, 1.0 is all
        data = _data(trainer)
        classifier.eval()
        found = predict(
            lambda images: _forward(trainer, classifier, images),
            data,
            "val",
            device=classifier.device,
        )
        if not _draws(trainer):
            return

        images = partial(images_of, data, "val")
        matrix = confusion_matrix(found)
        accuracy = f"validation accuracy {found.correct.mean():.4f}"
        worst = np.argsort(-found.losses, kind="stable")[:NUM_LOSSES]
        path = _path(trainer, "confusion")
        draw_confusion(matrix, found.class_names, accuracy, path)
        _show(trainer, path)
        path = _path(trainer, "most_confused")
        title = "most confused validation images"
        draw_most_confused(found, most_confused(matrix), images, title, path)
        _show(trainer, path)
        path = _path(trainer, "top_losses")
        draw_answers(found, worst, images, "validation images with the highest loss", path)
        _show(trainer, path)


def _draws(trainer: pl.Trainer) -> bool:
    return IS_FIRST_PROCESS and not trainer.fast_dev_run  # type: ignore[attr-defined]


def _data(trainer: pl.Trainer) -> ImageDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ImageDataModule)
    return data


def _forward(trainer: pl.Trainer, classifier: ImageClassifier, images: Tensor) -> Tensor:
    plugin = trainer.precision_plugin
    with plugin.forward_context():
        logits: Tensor = classifier(plugin.convert_input(images))
    return logits


def _path(trainer: pl.Trainer, name: str) -> Path:
    return subfolder(Path(trainer.default_root_dir), "figures") / f"{name}.png"


def _save(trainer: pl.Trainer, name: str, grid: Tensor) -> None:
    """(3, H, W) uint8 to a PNG."""
    path = _path(trainer, name)
    save_pixels(grid, path)
    _show(trainer, path)


def _show(trainer: pl.Trainer, path: Path) -> None:
    """The picture in TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(path.stem, pixels, trainer.global_step, dataformats="HWC")


def draw_curves(trainer: pl.Trainer) -> None:
    """`curves.png` from metrics.csv; nothing where there is no epoch."""
    rows = epochs_of(Path(trainer.default_root_dir))
    if rows:
        path = _path(trainer, "curves")
        draw_epochs(rows, path)
        _show(trainer, path)
