"""Load a trained network, with its data and preprocessing, from a run folder or a checkpoint.

The network makes the same predictions as in its run, because it uses the same precision, memory
layout and preprocessing. No code in a checkpoint is executed, and the targets that its
configuration names are built only if they come from trusted packages.
"""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from glimpse.assembly import build_data, choose_precision
from glimpse.checkpoint_file import is_intact
from glimpse.config.build import plain, require_no_library_function, targets_of
from glimpse.config.check import check_targets, check_values
from glimpse.config.keys import leaves, unknown_key
from glimpse.config.schema import NOT_KNOWN_YET, PATHS
from glimpse.config.trust import NOT_FROM_A_RECORD, check_record, listed_packages
from glimpse.data.decode import PixelFormat, decode, fitted
from glimpse.data.module import ImageDataModule
from glimpse.data.preprocess import Preprocess
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError, refuse_web_address
from glimpse.found_checkpoint import BEST, CHECKPOINTS, LAST, find_checkpoint
from glimpse.insight.predictions import Prediction, Predictions, names_of, predict
from glimpse.lightning_compat import settle
from glimpse.models.weights import of_network
from glimpse.network import build_network
from glimpse.nonfinite import weight_not_finite
from glimpse.progress_bar import counted, progress_bar
from glimpse.resume import require_same_input
from glimpse.runs.folder import epochs_of, read_run
from glimpse.runs.images import Images, one_by_one
from glimpse.runs.other_images import labelled_images
from glimpse.saved import read_checkpoint
from glimpse.streams import say
from glimpse.text import some
from glimpse.trainer import device_of, device_or_none

PREDICTED_TOGETHER = 64  # images
BUILT = ("data", "model", "augment", "metrics")  # of a checkpoint's configuration


class TrainedRun:
    """A network in evaluation mode, on the device that its configuration or `overrides` selects.

    Args:
        path: A checkpoint, or a run folder. The folder's best checkpoint is loaded, or its last one
            if there is no best.
        overrides: `key=value` settings that replace the run's own, such as `data_dir=/data`.
        trust: Packages in addition to those of config/trust.py that the checkpoint may name, for
            your own network or dataset.

    Attributes:
        model: The network alone, in evaluation mode. It takes (B, C, H, W) normalised float32
            images and computes in fp32, like an exported file. `predict` computes in the run's
            precision. After a training in bf16-true, 16-true or 64-true, the network has that type.

    Raises:
        UserError: there is no checkpoint, or it is damaged, does not fit its own model, or names a
            package that is not trusted.
    """

    def __init__(
        self, path: str | Path, *, overrides: Sequence[str] = (), trust: Sequence[str] = ()
    ) -> None:
        self.checkpoint = find_checkpoint(Path(path))
        saved = _read(self.checkpoint)
        extra = saved["glimpse"]
        trusted = (*trust, *listed_packages(()))
        recorded = recorded_config(extra["config"], self.checkpoint, trusted)
        if device_or_none(recorded) is None:  # such as the GPU that it was trained on
            OmegaConf.update(recorded, "trainer.accelerator", "auto")
        self.config = overridden(recorded, overrides)
        self.spec = ImageSpec.from_dict(extra["spec"])
        self.fingerprint: str = extra["fingerprint"]
        self.epoch = int(saved["epoch"]) + 1
        height, width = extra["stored_size"]
        self.stored_size = (height, width)
        self.fit = self.config.data.get("fit", "crop")  # another dataset may lack the key
        self._format = PixelFormat(height, width, self.spec.channels, self.fit, extra.get("white"))
        self._preprocess = Preprocess(self.spec)
        self.model = _network(self.config, self.spec, saved["state_dict"], self.checkpoint)
        device = device_of(self.config)
        settle(device)
        if device == "cuda":
            torch.set_float32_matmul_precision("high")  # as in the run
        chosen = choose_precision(self.config, self.model, self.spec, device)
        self.precision = chosen.name
        self.memory_format = chosen.memory_format
        fabric = Fabric(accelerator=device, devices=1, precision=chosen.name)  # type: ignore[arg-type]
        self.network = fabric.setup_module(self.model.to(memory_format=self.memory_format))
        self.device = fabric.device
        self._data: ImageDataModule | None = None

    @property
    def white(self) -> float | None:
        """The value that is white in images of more than 8 bits; None if there were none."""
        return self._format.white

    def __repr__(self) -> str:
        is_best = self.checkpoint.name == BEST
        accuracy = self.metrics.get("val/acc") if is_best else None
        place = self.folder if is_best else self.checkpoint
        result = "" if accuracy is None else f", val/acc={accuracy:.4f}"
        return f"TrainedRun({str(place)!r}{result})"

    @property
    def folder(self) -> Path:
        """The run folder. For a checkpoint elsewhere, a folder named like the checkpoint."""
        if self.checkpoint.parent.name == CHECKPOINTS:
            return self.checkpoint.parent.parent
        return self.checkpoint.with_suffix("")

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the run's best checkpoint, such as "test/acc"; empty without a folder."""
        return read_run(self.folder).metrics if self.folder.is_dir() else {}

    @property
    def curves(self) -> dict[str, list[float]]:
        """The columns of metrics.csv, such as "val/acc", with one value per epoch.

        A value is NaN if the epoch has none, for example no validation.
        """
        rows = epochs_of(self.folder)
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name, math.nan) for row in rows] for name in names}

    @property
    def name(self) -> str:
        """The name of the run: the last two parts of its folder's path."""
        return "/".join(self.folder.resolve().parts[-2:])

    @property
    def data(self) -> ImageDataModule:
        """The run's dataset, with the run's splits.

        Raises:
            UserError: the dataset cannot be found, or has different classes.
        """
        if self._data is None:
            data = build_data(self.config)
            if data.spec.class_names != self.spec.class_names:
                raise UserError(
                    f"{self.name} was trained on {self.spec.num_classes} classes "
                    f"({some(self.spec.class_names, 3)}), but the data here has "
                    f"{data.spec.num_classes} ({some(data.spec.class_names, 3)}): "
                    "type the place of its own data; glimpse evaluate RUN --data FOLDER scores other images"
                )
            if data.fingerprint != self.fingerprint:
                say(f"note: the data or its splits differ from what {self.name} was trained on")
            data.see_as(self.spec)  # normalises with the checkpoint's statistics, not this data's
            data.batches.lay_out(self.memory_format)
            self._data = data
        return self._data

    def score_on(self, path: Path, settings: Mapping[str, Any]) -> None:
        """From now on, `data` is the labelled images of a folder or table, as a test set.

        Args:
            path: The folder or table.
            settings: How to read the table, by keys of data=csv such as folder.

        Raises:
            UserError: they cannot be read, or have other classes.
        """
        data = labelled_images(path, self.config, self.spec, self._format, settings)
        data.batches.lay_out(self.memory_format)
        self._data = data

    def require_split(self, split: str | None, *, default: str) -> str:
        """Return `split` if given, otherwise `default` if the data has it, otherwise "val".

        Raises:
            UserError: the data has no such split.
        """
        chosen = split or (default if default in self.data.splits else "val")
        if chosen not in self.data.splits:
            raise UserError(
                f"--split {chosen}: expected one of {', '.join(sorted(self.data.splits))}"
            )
        return chosen

    def predict_split(self, split: str) -> Predictions:
        """Predict every image of a split of the run's data.

        Raises:
            UserError: the network's output for an image is not finite.
        """
        num_images = len(self.data.splits[split].rows)
        with progress_bar(f"predicting {split}", num_images, unit="image") as bar:
            found = predict(counted(self.network, bar), self.data, split, device=self.device)
        wrong = np.flatnonzero(np.isnan(found.losses))
        if len(wrong):
            raise UserError(not_finite(f"{names_of(self.data, split)[wrong[0]]}", len(wrong)))
        return found

    def predict(self, images: Images) -> Any:
        """Predict images, or every image of a split of the run's data.

        Args:
            images: One or several images: paths, Pillow images, (H, W), (H, W, C) or (N, H, W, C)
                uint8 arrays, or (C, H, W) or (N, C, H, W) uint8 tensors. They are cropped and
                resized as in training. Or the name of a split: "train", "val" or "test".

        Returns:
            A list with one `Prediction` for each image. For a split, its `Predictions`: also one
            `Prediction` for each image, with arrays over all of them, such as `labels`.

        Raises:
            UserError: an image cannot be read or has another type, the network's output for it is
                not finite, or the data has no such split.
        """
        if isinstance(images, str) and images in ("train", "val", "test"):
            if images not in self.data.splits:
                has = ", ".join(sorted(self.data.splits))
                raise UserError(f"{images}: the data of this run has no such split, only {has}")
            return self.predict_split(images)
        if isinstance(images, str) and images.isidentifier() and not os.path.lexists(images):
            raise UserError(
                f"{images} is neither a split nor a file: expected train, val, test or a path"
            )
        pixels = map(self._pixels, one_by_one(images, channels=self.spec.channels))
        found: list[Prediction] = []
        while batch := list(itertools.islice(pixels, PREDICTED_TOGETHER)):
            answers = self.probabilities(torch.from_numpy(np.stack(batch)))
            for row in answers.isnan().any(1).nonzero().flatten().tolist():
                raise UserError(not_finite(f"image {len(found) + row}", 1))
            names = self.spec.class_names
            found += [Prediction(dict(zip(names, row, strict=True))) for row in answers.tolist()]
        return found

    def _pixels(self, image: str | Path | Image.Image) -> NDArray[np.uint8]:
        if isinstance(image, str | Path):
            refuse_web_address(image)
            if Path(image).is_dir():
                raise UserError(
                    f"{image} is a folder, expected image files: type glimpse predict <run> {image}, or "
                    "give a list of its files"
                )
            return self.read_image(Path(image))
        try:
            pixels = image.copy()
        except OSError as error:  # Pillow reads the pixels only now
            raise UserError(f"cannot read a Pillow image: {error}; open an intact file") from error
        return fitted(pixels, self._format, "the image").copy()

    def read_image(self, path: Path) -> NDArray[Any]:
        """Read any image file in the format of the run's stored images.

        Returns:
            (H, W, C) uint8, the image fitted as the run's `data.fit` says.

        Raises:
            UserError: the file cannot be read.
        """
        return decode(path, self._format).copy()  # torch needs a writable array

    def to_network(self, images: Tensor) -> Tensor:
        """Preprocess (B, H, W, C) uint8 images to (B, C, H, W) float32 on the network's device."""
        channels_first = images.to(self.device).permute(0, 3, 1, 2)
        seen: Tensor = self._preprocess.to(self.device)(channels_first)
        return seen.contiguous(memory_format=self.memory_format)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Map (B, H, W, C) uint8 images to (B, K) probabilities on the CPU."""
        logits: Tensor = self.network(self.to_network(images))
        return torch.softmax(logits.float(), 1).cpu()


def _read(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint. If the best one is damaged, suggest the last one.

    Raises:
        UserError: it is damaged, or not a checkpoint.
    """
    try:
        return read_checkpoint(checkpoint)
    except UserError as error:
        last = checkpoint.with_name(LAST)
        if checkpoint.name == BEST and not is_intact(checkpoint) and is_intact(last):
            raise UserError(f"{error}: type {last}") from error
        raise


def not_finite(image: str, number: int) -> str:
    """The error message for images whose prediction is not finite."""
    others = f" and {number - 1:,} other images" if number > 1 else ""
    return (
        f"the network's output for {image}{others} is not finite: use another checkpoint, or type "
        "trainer.precision=32-true"
    )


def recorded_config(config: dict[str, Any], path: Path, trusted: Sequence[str]) -> DictConfig:
    """A checkpoint's configuration, without the keys that download files.

    The configuration was resolved when the checkpoint was saved.

    Raises:
        UserError: it contains an interpolation, which could read this machine's environment, or
            names a package that is not trusted.
    """
    check_record(config, path, trusted)
    for name in NOT_FROM_A_RECORD:
        group, _, key = name.partition(".")
        config[group] |= {key: None} if key in config[group] else {}
    created = OmegaConf.create(config)
    if any(value == NOT_KNOWN_YET for _, value in leaves(created)):
        raise UserError(
            f"{path}: its configuration contains an interpolation, which is not allowed"
        )
    try:
        check_targets(created)
        for group, named in targets_of(created):
            if group in BUILT:
                require_no_library_function(group, named, trusted)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return created


def overridden(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A recorded configuration with other values for some of its keys.

    Raises:
        UserError: a key is not known, a value is not allowed, or the network's input would change.
    """
    known = [key for key, _ in leaves(config)]
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            raise UserError(f"{override}: expected KEY=VALUE, such as data_dir=/data")
        if key not in known and key in config:
            raise UserError(
                f"{override}: the {key} of a trained network cannot be replaced; type a setting of it, "
                "such as data.num_workers=2"
            )
        if key not in known:
            raise UserError(unknown_key(key, [*known, *map(str, config)]))
    merged = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
    for override in overrides:  # a path is text, not YAML
        key, _, value = override.partition("=")
        if key in PATHS and value not in ("", "null", "none", "default"):
            OmegaConf.update(merged, key, os.path.expanduser(value))
    assert isinstance(merged, DictConfig)
    check_values(merged, config)
    require_same_input(plain(config)["data"], plain(merged)["data"])
    return merged


def _network(
    config: DictConfig, spec: ImageSpec, state: dict[str, Tensor], path: Path
) -> nn.Module:
    network = build_network(config.model, spec)
    try:
        network.load_state_dict(of_network(state))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"{path} does not fit its own model: {reason}") from error
    name = weight_not_finite(network)
    if name is not None:
        raise UserError(
            f"{path}: the weights {name} are not finite, so the network cannot predict: use "
            "another checkpoint, or train again with a lower optimizer.lr"
        )
    return network.eval()
