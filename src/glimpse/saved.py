"""Load a checkpoint, which may come from a stranger, and check everything that later code relies
on.

The checkpoint is read as plain data, so no code in it runs. This file then checks its content: the
types, the facts about the images, and that its configuration is plain. Left out: whether it fits a
network or a dataset (resume.py, runs/trained.py), and which packages its configuration may name
(config/trust.py).
"""

import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from glimpse.checkpoint_file import AtomicCheckpointIO, is_intact
from glimpse.data.spec import COLOURS
from glimpse.errors import UserError, first_line
from glimpse.records import DEEPEST

MOST_CLASSES = 1_000_000
MOST_PIXELS = 65_535  # of a side; the largest JPEG
GROUPS = ("data", "model", "optimizer", "trainer")  # of the configuration, each a mapping
# The errors that torch raises for a file with content that it has not written.
_LOADING = (
    UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, OSError,
    ArithmeticError, AssertionError, MemoryError, ImportError,
)  # fmt: skip


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a run, after its checksum.

    Raises:
        UserError: it is damaged, contains more than plain data, or was not written by a run.
    """
    if not is_intact(path):
        raise UserError(f"{path} is not a checkpoint, or it is damaged")
    try:
        with zipfile.ZipFile(path) as zipped:
            packed = any(record.compress_type != zipfile.ZIP_STORED for record in zipped.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a checkpoint, or it is damaged") from error
    if packed:  # torch never compresses; a few kilobytes could unpack to any size
        raise UserError(f"{path} is not a checkpoint that torch has written: it is compressed")
    try:
        with warnings.catch_warnings():
            # They are about kinds of tensors that are rejected below.
            warnings.simplefilter("ignore", UserWarning)
            saved = AtomicCheckpointIO().load_checkpoint(path)
    except UnpicklingError as error:
        raise UserError(
            f"{path} contains more than plain data, which could run code, so it is not loaded"
        ) from error
    except _LOADING as error:
        raise UserError(
            f"{path} is not a checkpoint, or it is damaged: {first_line(error)}"
        ) from error
    if "glimpse" not in saved:
        raise UserError(f"{path} is not a checkpoint of `python train.py`")
    wrong = next(_faults(saved), None)
    if wrong is not None:
        raise UserError(f"{path} is not a checkpoint of `python train.py`: {wrong}")
    return saved


def _faults(saved: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of a checkpoint in order; later checks rely on earlier ones."""
    extra, state = saved["glimpse"], saved.get("state_dict")
    if not isinstance(extra, dict):
        yield "glimpse is not a mapping"
        return
    if not _is_count(saved.get("epoch"), most=10**9, least=0):
        yield "epoch is not a count"
    if not _is_count(saved.get("global_step"), most=10**15, least=0):
        yield "global_step is not a count"
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        yield "state_dict contains more than named tensors"
    if not all(map(_is_dense, _tensors_in(saved))):
        yield "a tensor is sparse, quantized or without data"
    config = extra.get("config")
    if not isinstance(config, dict) or not _is_plain(config):
        yield "config is not a plain mapping"
        return
    for group in GROUPS:
        if not isinstance(config.get(group), dict):
            yield f"config.{group} is not a mapping"
            return
    for group in ("data", "model", "optimizer"):
        if not isinstance(config[group].get("_target_"), str):
            yield f"config.{group}._target_ is missing"
    if not isinstance(extra.get("fingerprint"), str):
        yield "fingerprint is not text"
    size = extra.get("stored_size")
    if not isinstance(size, list) or len(size) != 2 or not all(map(_is_side, size)):
        yield "stored_size is not a height and a width"
    if not (extra.get("white") is None or _is_number(extra["white"])):
        yield "white is not a number"
    yield from _faults_of_spec(extra.get("spec"))


def _faults_of_spec(spec: Any) -> Iterator[str]:
    keys = {"num_classes", "class_names", "channels", "height", "width", "mean", "std"}
    if not isinstance(spec, dict) or set(spec) != keys:
        yield f"spec does not have the keys {', '.join(sorted(keys))}"
        return
    names, channels = spec["class_names"], spec["channels"]
    if not _is_count(spec["num_classes"], most=MOST_CLASSES):
        yield "spec.num_classes is not a count"
    elif not isinstance(names, list) or len(names) != spec["num_classes"]:
        yield f"spec.class_names are not {spec['num_classes']} names"
    elif not all(isinstance(name, str) for name in names):
        yield "spec.class_names contains more than names"
    if not (_is_side(spec["height"]) and _is_side(spec["width"])):
        yield "spec.height and spec.width are not a size"
    if not _is_count(channels, most=max(COLOURS)) or channels not in COLOURS:
        yield f"spec.channels is {channels!r:.40}, expected 1 or 3"
        return
    for key in ("mean", "std"):
        values = spec[key]
        if (
            not isinstance(values, list)
            or len(values) != channels
            or not all(map(_is_number, values))
        ):
            yield f"spec.{key} is not {channels} finite numbers"
            return
    if min(spec["std"]) <= 0:
        yield (f"the standard deviation of a channel is {min(spec['std']):g}, expected more than 0")


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in a checkpoint, at any depth. Objects in a pickle may contain themselves."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, Mapping | list | tuple | set) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, Mapping) else one


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta)


def _is_count(value: Any, *, most: int, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_side(value: Any) -> bool:
    return _is_count(value, most=MOST_PIXELS)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= 1e300 and math.isfinite(value)


def _is_plain(value: Any) -> bool:
    """Whether a value consists of mappings, lists, text and numbers only.

    The keys of mappings are text or numbers, as in `scheduling: {0: 2}`. No part may occur in two
    places, as an alias of YAML does, because a few of them could expand to any size.
    """
    layer, seen = [value], set()
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for one in layer:
            if isinstance(one, dict | list):
                if id(one) in seen:
                    return False
                seen.add(id(one))
            if isinstance(one, dict):
                if not all(isinstance(key, str | int | float) for key in one):
                    return False
                inner += one.values()
            elif isinstance(one, list):
                inner += one
            elif not (one is None or isinstance(one, str | int | float)):
                return False
        if not inner:
            return True
        layer = inner
    return False
