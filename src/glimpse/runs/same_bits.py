"""Check whether two trainings gave the same bits. If not, find the first difference and its causes.

This compares the weights in best.ckpt and last.ckpt, every number in metrics.csv except times, and
the results in summary.json.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glimpse.checkpoint_file import is_intact
from glimpse.errors import UserError
from glimpse.files import is_own_file
from glimpse.found_checkpoint import BEST, CHECKPOINTS, LAST
from glimpse.records import OF_THE_SPEED, mapping
from glimpse.runs.folder import epochs_of, read_run
from glimpse.runs.settings import PLACES, environment_of, flattened, settings_of
from glimpse.saved import read_checkpoint
from glimpse.text import plural

# Packages that compute numbers; other packages hardly affect them.
COMPUTING = (
    "torch", "torchvision", "lightning", "timm", "numpy", "pillow", "torchmetrics", "python",
)  # fmt: skip
# Keys of environment.json with their names for people, the most likely causes first.
MACHINE = {
    "device": "device", "gpus": "GPUs", "precision": "precision", "processes": "processes",
    "processor": "processor", "instructions": "instructions of the processor", "threads": "threads",
    "cuda": "CUDA", "variables": "environment variables",
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison of two runs.

    Attributes:
        equal: The files that are equal, such as "best.ckpt (12 tensors)".
        differences: A line for each file that differs, with the place of its first difference.
        causes: Possible causes of the differences, the most likely first; empty if nothing differs.
    """

    equal: Sequence[str]
    differences: Sequence[str]
    causes: Sequence[str]


def compare_bits(original: Path, again: Path, *, typed: Sequence[str] = ()) -> Comparison:
    """Compare a run folder with the folder of a repeated training.

    Args:
        original: The run folder.
        again: The folder of the repeated training.
        typed: Settings that were changed for the repeated training.

    Raises:
        UserError: the original has no intact checkpoint.
    """
    equal: list[str] = []
    differences: list[str] = []
    rows, now = epochs_of(original), epochs_of(again)
    difference = first_of_epochs(rows, now)
    if difference:
        differences.append(f"metrics.csv differs first in {difference}")
    else:
        equal.append(f"metrics.csv ({plural(len(rows), 'epoch')})")
    compared = [
        name for name in (BEST, LAST) if is_own_file(original, original / CHECKPOINTS / name)
    ]
    saved: dict[str, Any] = {}
    for name in compared:
        before, after = (folder / CHECKPOINTS / name for folder in (original, again))
        if not is_intact(before):
            differences.append(f"{name} of {original} is damaged, so it is not compared")
            continue
        if not after.is_file():
            differences.append(f"{name} was not written this time")
            continue
        saved, saved_now = read_checkpoint(before), read_checkpoint(after)
        difference = first_of_tensors(saved["state_dict"], saved_now["state_dict"])
        if difference:
            differences.append(f"{name} differs first in {difference}")
        else:
            equal.append(f"{name} ({plural(len(saved['state_dict']), 'tensor')})")
    if not saved:
        raise UserError(f"{original} has no intact checkpoint to compare with")
    difference = _first_number(read_run(original).metrics, read_run(again).metrics)
    if difference:
        differences.append(f"the results in summary.json differ first in {difference}")
    causes: list[str] = []
    if differences:
        data = saved["glimpse"]["fingerprint"], saved_now["glimpse"]["fingerprint"]
        causes = list(_causes(original, again, saved["glimpse"]["config"], data, typed))
    return Comparison(equal, differences, causes)


def first_of_epochs(
    before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]
) -> str | None:
    """The first epoch and column in which two files of metrics differ; None if they are equal."""
    for row, other in zip(before, now, strict=False):
        if difference := _first_number(row, other):
            return f"epoch {row['epoch']:.0f}, column {difference}"
    if len(before) != len(now):
        return f"epoch {min(len(before), len(now)) + 1}: {plural(len(before), 'epoch')}, now {len(now)}"
    return None


def first_of_tensors(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> str | None:
    """The first layer in which two sets of weights differ in any bit; None if they are equal."""
    different = [
        name
        for name in dict.fromkeys((*before, *now))
        if name not in before or name not in now or not is_same(before[name], now[name])
    ]
    if not different:
        return None
    first = different[0]
    layer, _, parameter = first.removeprefix("network.").rpartition(".")
    place = f"layer {layer or parameter}, its {parameter}"
    if first not in before or first not in now:
        return f"{place}: only one of the runs has it"
    tensors = before[first], now[first]
    amount = f"shape {tuple(tensors[0].shape)}, now {tuple(tensors[1].shape)}"
    if tensors[0].shape == tensors[1].shape:
        largest = (tensors[0].double() - tensors[1].double()).abs().max().item()
        amount = f"by up to {largest:.2g}"
    return f"{place}, {amount}; {len(different)} of {len(before)} tensors differ"


def is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bits; NaN equals itself, and 0 is not -0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    first, second = (
        t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)
    )
    return torch.equal(first, second)


def _first_number(before: Mapping[str, float], now: Mapping[str, float]) -> str | None:
    """The first number that differs, with its name; None if there is none, except of the speed."""
    for name in dict.fromkeys((*before, *now)):
        if name not in OF_THE_SPEED and before.get(name) != now.get(name):
            return f"{name}: {_number(before.get(name))}, now {_number(now.get(name))}"
    return None


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.7g}"


# Causes -------------------------------------------------------------------------------------------


def _causes(
    original: Path,
    again: Path,
    config: Mapping[str, Any],
    fingerprints: tuple[str, str],
    typed: Sequence[str],
) -> Iterator[str]:
    """The possible causes of a difference, the most likely first.

    Args:
        original: The run folder.
        again: The folder of the repeated training.
        config: The original's configuration.
        fingerprints: The identities of the data of both.
        typed: Settings that were changed for the repeated training.
    """
    before, now = environment_of(original), environment_of(again)
    if fingerprints[0] != fingerprints[1]:
        yield "data: the images, their labels or their splits differ from those of the run"
    changed = [word for word in typed if word.partition("=")[0] not in PLACES]
    if changed:
        yield f"settings: {' '.join(changed)} was typed"
    yield from _changed_at_resume(original, config)
    yield from _of_code("code of glimpse", before.get("git"), now.get("git"))
    own, own_now = mapping(before.get("own_code")), mapping(now.get("own_code"))
    for package in dict.fromkeys((*own, *own_now)):
        yield from _of_code(f"code of {package}", own.get(package), own_now.get(package))
    if not before:
        yield "environment: environment.json of the run cannot be read"
    for key, name in MACHINE.items():
        if key in before and before[key] != now.get(key):
            yield f"{name}: {_shown(before[key])}, now {_shown(now.get(key))}"
    yield from _of_versions(mapping(before.get("versions")), mapping(now.get("versions")))
    if any(mapping(record.get("git")).get("untracked") for record in (before, now)):
        yield "code: files that git does not track, whose content is not recorded"
    if config["trainer"].get("max_time") or "time_limit" in (config.get("callbacks") or {}):
        yield "time: the run has a time limit"
    if now.get("device") != "cpu" and not config["trainer"].get("deterministic"):
        yield "order of sums on the device: type trainer.deterministic=true when you train"


def _changed_at_resume(original: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Settings that were changed when the run was resumed."""
    begun = settings_of(original, {"command": []})
    ended = flattened(config)
    changed = [
        f"{key}={ended[key]} in place of {begun.get(key, 'none')}"
        for key in ended
        if key not in (*PLACES, "trainer.max_epochs")
        and "${" not in begun.get(key, "")
        and begun.get(key) != ended[key]
    ]
    if changed:
        yield f"settings: the run was resumed with {', '.join(changed)}"


def _of_code(what: str, before: Any, now: Any) -> Iterator[str]:
    """How the commits and the uncommitted changes of two checkouts differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return
    commits = [str(found.get("commit"))[:9] for found in (before, now)]
    if commits[0] != commits[1]:
        yield f"{what}: commit {commits[0]}, now {commits[1]}"
    if before.get("dirty") and "diff" not in before:
        yield f"{what}: the run had uncommitted changes, which are not recorded"
    elif before.get("diff") != now.get("diff"):
        yield f"{what}: the uncommitted changes differ from those of the run (see environment.json)"


def _of_versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    changed = [name for name in before if name in now and before[name] != now[name]]
    named = [name for name in COMPUTING if name in changed]
    if named:
        parts = ", ".join(f"{name} {before[name]}, now {now[name]}" for name in named)
        yield f"versions: {parts}"
    if len(changed) > len(named):
        yield f"versions: {len(changed) - len(named)} other packages (environment.json lists them)"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, text in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
