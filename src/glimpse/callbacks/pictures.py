"""Draw pictures of a run into its figures/ folder, and send them to its loggers.

At the start, this draws a training batch as the network sees it. Every few epochs, it draws the
first layer and the predictions for some validation images. At the end, it draws the confusion
matrix, the most confused classes, the highest losses, and the curves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchvision.utils import make_grid

from glimpse.classifier import ImageClassifier
from glimpse.console import console
from glimpse.data.loader import Batch
from glimpse.data.module import ImageDataModule, data_of
from glimpse.files import CannotWriteError, subfolder
from glimpse.insight.first_layer import enlarged, first_weights, kernel_grid
from glimpse.insight.predictions import Predictions, images_of, inputs_of, predict
from glimpse.lightning_compat import (
    IS_FIRST_PROCESS,
    is_dry,
    is_last_validation,
    next_batch,
    validation_interval,
)
from glimpse.loggers.record import show
from glimpse.plots.confusion import draw_confusion
from glimpse.plots.epochs import draw_epochs
from glimpse.plots.mistakes import draw_answers, draw_most_confused
from glimpse.plots.save import save_pixels
from glimpse.progress_bar import counted, progress_bar
from glimpse.runs.folder import epochs_of

NUM_TRAINING_IMAGES = 64
NUM_ANSWERED = 16  # validation images whose predictions are drawn; the same ones each time
NUM_LOSSES = 24
SHOWN_SIDE = 64  # pixels; smaller images are enlarged to about this size


class Pictures(Callback):
    """Draw the pictures of a run. `callbacks.pictures=null` turns off all except the curves.

    Args:
        every_n_epochs: The interval for the first layer and the predictions. They are also drawn
            at the first validation and after the first epoch. If an epoch has several validations,
            only its last one counts.
    """

    sees_chunks = True

    def __init__(self, *, every_n_epochs: int) -> None:
        self.every_n_epochs = every_n_epochs
        self._started = False
        self._complaints: list[str] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if self._started:
            return
        self._started = True
        if trainer.global_step or not _draws(trainer):
            return
        if batch.images.ndim == 2:  # precomputed features cannot be drawn
            return
        images = (
            data_of(trainer).batches.to_pixels(batch.images[:NUM_TRAINING_IMAGES].detach()).cpu()
        )
        grid = make_grid(enlarged(images, SHOWN_SIDE), nrow=8, padding=2, pad_value=1.0) * 255
        with _optional(self._complaints):
            _save(trainer, "train_batch", grid.to(torch.uint8))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the first layer and predictions with the validated weights, such as EMA's."""
        epoch = trainer.current_epoch + 1
        if trainer.sanity_checking or not _draws(trainer):
            return
        if epoch > 1 and epoch % self.every_n_epochs:
            return
        is_first = epoch == 1 and next_batch(trainer) <= validation_interval(trainer)
        if not (is_first or is_last_validation(trainer)):
            return
        assert isinstance(pl_module, ImageClassifier)
        weights = first_weights(pl_module.network, pl_module.spec)
        data = data_of(trainer)
        with _optional(self._complaints):
            if weights is not None:
                _save(trainer, "first_layer", kernel_grid(weights))
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
        """Draw the confusion matrix, confused images and highest losses, with the final weights.

        All pictures use the validation set, because people improve the run based on them, and the
        test set must stay unseen. If the run has several processes, all of them must call this. If
        validation uses only some batches, nothing is drawn.
        """
        if not isinstance(trainer.limit_val_batches, float) or trainer.limit_val_batches != 1.0:
            return  # the int 1 means one batch, the float 1.0 means all of them
        data, device = data_of(trainer), trainer.strategy.root_device
        classifier.eval().to(device)  # after an evaluation, Lightning has moved it to the CPU
        num_images = len(data.splits["val"].rows) // trainer.world_size
        with progress_bar(
            "predicting val", num_images, unit="image", vanishes=True, shown=not console.quiet
        ) as bar:
            forward = counted(partial(_forward, trainer, classifier), bar)
            found = predict(forward, data, "val", device=device)
        if _draws(trainer):
            with _optional(self._complaints):
                _draw_mistakes(trainer, data, found)


def _draw_mistakes(trainer: pl.Trainer, data: ImageDataModule, found: Predictions) -> None:
    images = partial(images_of, data, "val")
    accuracy = f"validation accuracy {found.correct.mean():.4f}"
    path = _path(trainer, "confusion")
    draw_confusion(found, accuracy, path)
    _show_result(trainer, path)
    path = _path(trainer, "most_confused")
    title = "most confused validation images"
    draw_most_confused(found, images, title, path)
    _show_result(trainer, path)
    path = _path(trainer, "top_losses")
    draw_answers(
        found, found.worst(NUM_LOSSES), images, "validation images with the highest loss", path
    )
    _show_result(trainer, path)


@contextmanager
def _optional(complaints: list[str]) -> Iterator[None]:
    """Skip pictures that cannot be written, for example on a full disk. Prints one error only."""
    try:
        yield
    except CannotWriteError as error:
        if not complaints:
            console.print(f"{error}; the run continues without this picture")
        complaints.append(str(error))


def _draws(trainer: pl.Trainer) -> bool:
    return IS_FIRST_PROCESS and not is_dry(trainer)


def _forward(trainer: pl.Trainer, classifier: ImageClassifier, images: Tensor) -> Tensor:
    plugin = trainer.precision_plugin
    with plugin.forward_context():
        logits: Tensor = classifier(plugin.convert_input(images))
    return logits


def _path(trainer: pl.Trainer, name: str) -> Path:
    return subfolder(Path(trainer.default_root_dir), "figures") / f"{name}.png"


def _save(trainer: pl.Trainer, name: str, grid: Tensor) -> None:
    """Save (3, H, W) uint8 pixels as a PNG."""
    path = _path(trainer, name)
    save_pixels(grid, path)
    _show(trainer, path)


def _show(trainer: pl.Trainer, path: Path) -> None:
    """Send the picture to the loggers, at the step of the epoch's metrics."""
    show(trainer.loggers, path, max(0, trainer.global_step - 1))


def _show_result(trainer: pl.Trainer, path: Path) -> None:
    """Send a picture at the step of the results, from which a resumed run sends pictures again."""
    show(trainer.loggers, path, trainer.global_step)


def draw_curves(trainer: pl.Trainer) -> None:
    """Draw `curves.png` from metrics.csv, if there is at least one epoch."""
    rows = epochs_of(Path(trainer.default_root_dir))
    if rows:
        with _optional([]):
            path = _path(trainer, "curves")
            draw_epochs(rows, path)
            _show_result(trainer, path)
