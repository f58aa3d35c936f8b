"""Require the files and folders in a configuration to exist, before heavy modules are imported."""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig

from glimpse.command import in_shell
from glimpse.config.schema import CSV_TABLE, IMAGE_FOLDER
from glimpse.errors import UserError

# Keys of the two datasets that read a user's own files.
FOLDERS, TABLES = ("root",), ("train", "val", "test")
OWN_FILES = {IMAGE_FOLDER: FOLDERS, CSV_TABLE: TABLES}
PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
NO_FILES = (None, "none", "default")  # values of model.weights


def check_places(config: DictConfig) -> None:
    """Require the user's own images and tables to exist.

    Known datasets are in `data_dir`. Their own errors say how to get them.

    Raises:
        UserError: one of them does not exist. The message names the most similar path that does.
    """
    data = config.data
    if data.get("url") is not None:  # they may be downloaded first
        return
    for key in OWN_FILES.get(str(data.get("_target_")), ()):
        place = data.get(key)
        if isinstance(place, str) and not Path(place).is_relative_to(config.data_dir):
            _require(wrong_place(f"data.{key}", place))


def require_weights(config: DictConfig) -> None:
    """Require the file of `model.weights` to exist. A resumed run does not need it.

    Raises:
        UserError: the file does not exist.
    """
    weights = config.model.get("weights")
    is_read = weights not in NO_FILES and str(config.model._target_).startswith("glimpse.")
    if is_read and not config.resume:
        _require(wrong_place("model.weights", str(weights)))


def _require(wrong: str | None) -> None:
    if wrong is not None:
        raise UserError(wrong)


def wrong_place(key: str, value: str, *, source: str | None = None) -> str | None:
    """An error message for the file or folder that a key names; None if nothing is wrong.

    Args:
        key: Such as data.root.
        value: The path as typed.
        source: Where the file, or an archive of the folder, can be downloaded, if that is known.
    """
    path = Path(os.path.expanduser(value))
    part = key.rpartition(".")[2]
    if not path.exists():
        what = {"root": "folder", "weights": "file or run folder"}.get(part, "table")
        return f"{key}={value}: no such {what}{_hint(key, value, source)}"
    if part in FOLDERS and not path.is_dir():
        remedy = ""
        if path.suffix in (".csv", ".tsv"):
            remedy = f"; for a table, type {for_a_path('data', value)}"
        elif path.suffix.lower() in PACKED:
            remedy = "; unpack it, and type the unpacked folder"
        elif path.suffix == ".parquet":
            remedy = f"; type {for_a_path('data', value)}"
        return f"{key}={value}: expected a folder of images, found a file{remedy}"
    if part in TABLES and path.is_dir():
        return (
            f"{key}={value}: expected a table, found a folder: type the name of a file; for a folder of "
            f"images, type data=image_folder {in_shell(f'data.root={value}')}"
        )
    return None


def for_a_path(group: str, choice: str, available: Iterable[str] = ()) -> str | None:
    """What to type if a path was given as the name of a choice; None if it looks like a name.

    Another spelling of an available name is no path, even if a folder is called so: MNIST is mnist.
    """
    if _letters(choice) in map(_letters, available):
        return None
    ending = Path(choice).suffix.lower()
    if ending == ".yaml":
        return f"{group}={Path(choice).stem}"
    is_path = bool(set("/\\ (") & set(choice)) or bool(ending) or os.path.exists(choice)
    if group == "data" and is_path:
        if ending == ".parquet":
            return f"data=huggingface {in_shell(f'data.name={choice}')}"
        if ending in (".csv", ".tsv", ".txt"):
            return f"data=csv {in_shell(f'data.train={choice}')}"
        return f"data=image_folder {in_shell(f'data.root={choice}')}"
    if group == "model" and ending in (".ckpt", ".pt", ".pth", ".safetensors"):
        return f"model=<its name> {in_shell(f'model.weights={choice}')}"
    return None


def _letters(name: str) -> str:
    """A name in lower case, without what its spellings differ in."""
    return re.sub(r"[-_. ]", "", name.lower())


def _hint(key: str, value: str, source: str | None) -> str:
    """What to type in place of a path that does not exist."""
    path = Path(os.path.expanduser(value))
    if "://" in value:
        return ", but a web address: download it, and type the path of the download"
    if os.name != "nt" and (drive := re.match(r"([A-Za-z]):", value)):
        rest = value[2:].replace("\\", "/").lstrip("/")
        return (
            "; Windows drives have other names here: in WSL, type "
            f"{in_shell(f'{key}=/mnt/{drive[1].lower()}/{rest}')}"
        )
    if os.name != "nt" and "\\" in value:
        return (
            f"; type {in_shell(f'{key}={value.replace(chr(92), chr(47))}')}, with / between folders"
        )
    if source:
        if key.endswith(FOLDERS):
            return f"; download {source} and unpack it into {path.parent}"
        return f"; download it from {source} and put it there"
    try:
        beside = [str(other) for other in path.parent.iterdir()]
    except OSError:
        beside = []
    near = difflib.get_close_matches(str(path), beside, n=1, cutoff=0.75)
    if near:
        return f": did you mean {near[0]}?"
    own = {"root": "images", "weights": "weights"}.get(key.rpartition(".")[2], "table")
    return f"; type {key}=<your {own}>"
