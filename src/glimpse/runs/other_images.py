"""Labelled images that are not a run's own, all of them as one set to score its network on."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glimpse.config.build import build, plain
from glimpse.config.schema import CSV_TABLE, IMAGE_FOLDER
from glimpse.data.decode import PixelFormat
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError, first_line
from glimpse.records import parse_yaml

OF_TABLES = ("label", "path", "folder", "suffix", "shape", "class_names", "num_classes")


def of_the_table(settings: Sequence[str], path: Path) -> tuple[dict[str, Any], list[str]]:
    """Settings that say how to read a table of other images, by key, and the others as typed.

    Raises:
        UserError: a value is not YAML.
    """
    own: dict[str, Any] = {}
    others = []
    for line in settings:
        key, _, value = line.partition("=")
        group, _, name = key.partition(".")
        if group != "data" or name not in OF_TABLES or not path.is_file():
            others.append(line)
            continue
        try:
            own[name] = parse_yaml(value)
        except ValueError as error:
            raise UserError(
                f"--set {line}: expected a value in YAML: {first_line(error)}"
            ) from error
    return own, others


def labelled_images(
    path: Path,
    config: Mapping[str, Any],
    spec: ImageSpec,
    stored: PixelFormat,
    settings: Mapping[str, Any],
) -> ImageDataModule:
    """Read a folder of classes' folders, or a table, as the test set of a trained network.

    Args:
        path: The folder, or a .csv or .tsv file.
        config: The run's configuration. A table is read by its keys, if the run has a table too.
        spec: The spec of the network.
        stored: The format in which the run stored its images.
        settings: Keys of `OF_TABLES` and their values, which replace the run's.

    Raises:
        UserError: there are no such images, or their classes are not among the network's.
    """
    if not path.exists():
        raise UserError(
            f"--data {path}: there is no such folder or table: type --data <your images>"
        )
    before = plain(config["data"])
    node: dict[str, Any] = {
        "data_dir": config["data_dir"], "seed": 0, "batch_size": before["batch_size"], "val_fraction": 0.0,
        "num_workers": before.get("num_workers"), "cache": False,
    }  # fmt: skip
    if path.is_dir():
        node |= {"_target_": IMAGE_FOLDER, "root": str(path)}
    else:
        node |= {"_target_": CSV_TABLE, "train": str(path)}
        if before["_target_"] == CSV_TABLE:
            node |= {key: before[key] for key in OF_TABLES if before.get(key) is not None}
        node |= settings
    data = build("data", node)
    assert isinstance(data, ImageDataModule)
    try:
        data.score_all(spec, stored)
    except UserError as error:  # the dataset speaks of its key
        message = re.sub(r"\bdata\.(root|train)=", "--data ", str(error))
        message = re.sub(r"data=csv (--data )", r"\1", message)
        key = rf"(?<!--set )([\"']?)\b(data\.({'|'.join(OF_TABLES)})=)"
        raise UserError(re.sub(key, r"--set \1\2", message)) from error
    return data
