"""Describe one run: what was run, the results, whether it overfits, and how to repeat it.

The terminal and the run's page show the same facts. Comparisons between runs are in report.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glimpse.command import as_shown, in_shell
from glimpse.found_checkpoint import CHECKPOINTS
from glimpse.records import FINISHED, finite, listed, mapping
from glimpse.runs.folder import RUNNING, Run
from glimpse.runs.settings import (
    MAX_EPOCHS,
    THEN,
    environment_of,
    overrides_of,
    to_resume,
    to_train,
    was_resumed,
)
from glimpse.text import decimals, plural

SPLITS = ("train", "val", "test")
# The packages in environment.json that affect the results most.
SHOWN_PACKAGES = (
    "python", "torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "numpy",
)  # fmt: skip
COMMIT = re.compile(r"[0-9a-f]{7,64}")  # only such text is put into a command to copy

Table = tuple[list[str], list[list[str]]]  # the names of the columns, and the rows


@dataclass(frozen=True)
class Description:
    """The description of a run.

    Attributes:
        facts: (name, value) pairs.
        results: A row for each split; None if nothing was measured.
        recall: A row for each class, the lowest recall first; None unless the classes differ much
            in size.
        gap: A sentence on overfitting; empty if nothing was trained.
        commands: Shell commands that repeat or resume the run.
    """

    facts: list[tuple[str, str]]
    results: Table | None
    recall: Table | None
    gap: str
    commands: list[str]


def describe(run: Run) -> Description:
    """Describe a run from the contents of its folder."""
    environment = environment_of(run.folder)
    overrides = overrides_of(run.folder)
    facts = [
        ("status", _status(run)),
        ("data", run.data),
        ("model", run.model),
        ("parameters", _number(run, "parameters", "{:,.0f}")),
        ("overrides", " ".join(overrides) or "none"),
        ("seed", str(run.summary.get("seed", ""))),
        ("epochs", _epochs(run)),
        ("took", _number(run, "seconds", "{:,.1f} s")),
        ("images per second", _number(run, "images_per_second", "{:,.0f}")),
        *((name, f"{found:g}") for name, found in run.metrics.items() if not _is_of_a_split(name)),
        *_surroundings(environment),
        ("folder", str(run.folder)),
    ]
    return Description(
        [(name, value) for name, value in facts if value],
        _results(run),
        _recall(run),
        _gap(run),
        _commands(run, environment, overrides),
    )


def _status(run: Run) -> str:
    return f"{run.status}: {run.problem}" if run.problem else run.status


def _number(run: Run, name: str, form: str) -> str:
    found = run.number(name)
    return form.format(found) if found is not None else ""


def _epochs(run: Run) -> str:
    done, planned = run.number("epochs"), run.settings.get(MAX_EPOCHS, "").rpartition(THEN)[2]
    if done is None:
        return ""
    best = run.number("best_epoch")
    chosen = f", the best by {run.monitor.name} was {best:.0f}" if best else ""
    return f"{done:.0f} of {planned}{chosen}" if planned.isdecimal() else f"{done:.0f}{chosen}"


def _surroundings(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not environment:
        return [("environment", "not recorded")]
    commit, is_dirty = _commit(environment)
    commit = f"{commit or 'not recorded'}{' with uncommitted changes' if is_dirty else ''}"
    machine = [environment.get("host"), environment.get("system"), environment.get("processor")]
    threads = finite(environment.get("threads"))
    machine.append(plural(int(threads), "thread") if threads else None)
    machine += listed(environment.get("gpus"))
    known = mapping(environment.get("versions"))
    versions = (f"{name} {known[name]}" for name in SHOWN_PACKAGES if name in known)
    return [
        ("git commit", commit),
        ("machine", ", ".join(map(str, filter(None, machine)))),
        ("versions", ", ".join(versions)),
    ]


def _commit(environment: Mapping[str, Any]) -> tuple[str, bool]:
    """The recorded commit, or "", and whether there were uncommitted changes."""
    git = mapping(environment.get("git"))
    commit = git.get("commit")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        return "", False
    return commit, bool(git.get("dirty"))


def _is_of_a_split(metric: str) -> bool:
    return metric.partition("/")[0] in SPLITS


def _results(run: Run) -> Table | None:
    kinds = list(dict.fromkeys(n.partition("/")[2] for n in run.metrics if _is_of_a_split(n)))
    rows = []
    for split in SPLITS:
        values = [run.metrics.get(f"{split}/{kind}") for kind in kinds]
        if any(value is not None for value in values):
            shown = [decimals(v) if v is not None else "" for v in values]
            majority = _number(run, "majority_acc", "{:.4f}") if split == run.reported else ""
            rows.append([_in_words(split, run), *shown, majority])
    return (["split", *kinds, "majority acc"], rows) if rows else None


def _in_words(split: str, run: Run) -> str:
    """The name of a split, with the number of images if only a part was measured."""
    number = run.measured_images.get(split)
    return split if number is None else f"{split} (first {plural(number, 'image')})"


def _recall(run: Run) -> Table | None:
    ranked = sorted(run.class_recall.items(), key=lambda item: item[1])
    rows = [[name, f"{value:.4f}"] for name, value in ranked]
    return (["class", f"recall on {run.reported}"], rows) if rows else None


def _gap(run: Run) -> str:
    if not run.is_training:
        return ""
    train, held_out = run.metrics.get("train/acc"), run.accuracy
    if train is None or held_out is None:
        missing = "train/acc" if train is None else "val/acc or test/acc"
        return f"overfitting gap: unknown without {missing}, which is measured when a run ends"
    return (
        f"overfitting gap: {train - held_out:+.4f} (train/acc {train:.4f} - {run.reported}/acc "
        f"{held_out:.4f}, both in evaluation mode with the best weights)"
    )


def _commands(run: Run, environment: Mapping[str, Any], overrides: list[str]) -> list[str]:
    lines = []
    commit, is_dirty = _commit(environment)
    if commit:
        note = "   # it had uncommitted changes: see environment.json" if is_dirty else ""
        lines.append(f"git checkout {commit}{note}")
    note = (
        "   # the run was trained in several attempts; this repeats it in one go"
        if was_resumed(environment)
        else ""
    )
    if run.settings:
        lines.append(to_train(environment, *map(as_shown, overrides)) + note)
    if run.status == FINISHED and run.is_training and (run.folder / CHECKPOINTS).is_dir():
        again = in_shell("glimpse", "repeat", str(run.folder))
        lines.append(f"{again}   # trains it again, and compares weights and metrics")
    if run.status not in (FINISHED, RUNNING) and (run.folder / CHECKPOINTS).is_dir():
        lines.append(f"{to_resume(run.folder)}   # resumes the run where it stopped")
    return lines
