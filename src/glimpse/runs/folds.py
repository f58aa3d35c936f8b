"""Pool the predictions of a cross-validation. The run that did not see an image predicts it.

The runs are those of `python train.py -m data.folds=5 data.fold=0,1,2,3,4`, found below the sweep's
folder. Every fold has to be there, once for each seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimpse.errors import UserError
from glimpse.found_checkpoint import CHECKPOINTS, checkpoints_of
from glimpse.insight.predictions import Predictions, names_of
from glimpse.records import FINISHED
from glimpse.runs.agreement import require_own_splits
from glimpse.runs.folder import Run, find_runs
from glimpse.runs.groups import Group, group
from glimpse.runs.settings import to_resume
from glimpse.runs.trained import TrainedRun

OUT_OF_FOLD = "out-of-fold"


@dataclass(frozen=True)
class Pooled:
    """The predictions of all folds of one configuration and seed.

    Attributes:
        label: Data, model and the settings that distinguish it from others in the folder, for
            display.
        name: The same, as a folder name; empty if there is only one.
        found: The predictions, fold by fold.
        image_names: The name of each image.
        first: The network of fold 0, which knows the metrics and the data.
        accuracies: The accuracy on each fold.
    """

    label: str
    name: str
    found: Predictions
    image_names: list[str]
    first: TrainedRun
    accuracies: list[float]


def is_folder_of_runs(path: Path) -> bool:
    """Whether a path is a folder that contains runs, and is not a run itself."""
    return (
        path.is_dir()
        and not checkpoints_of(path)
        and any(checkpoints_of(folder.parent) for folder in path.rglob(CHECKPOINTS))
    )


def pooled_folds(root: Path, overrides: Sequence[str], trust: Sequence[str]) -> Iterator[Pooled]:
    """Predict each validation fold below a folder with its own run, and pool the predictions.

    Raises:
        UserError: the runs are not folds, a fold is missing or unfinished, or the data have changed.
    """
    found = [(member, seed, runs) for member in _groups(root) for seed, runs in _by_seed(member)]
    for member, seed, runs in found:
        words = [member.data, member.model, member.label]
        words += [f"seed={seed}"] if len({s for m, s, _ in found if m is member}) > 1 else []
        label = " ".join(filter(None, words))
        safe = "".join(c if c.isalnum() or c in "=.-" else "_" for c in label)
        yield _pool(label, safe if len(found) > 1 else "", runs, overrides, trust)


def _groups(root: Path) -> list[Group]:
    runs = [run for run in find_runs(root) if run.settings.get("data.folds", "null") != "null"]
    if not runs:
        raise UserError(
            f"{root}: not a run folder, and the runs in it are not folds (data.folds=5 -m "
            "data.fold=0,1,2,3,4); type the folder of one run"
        )
    for run in runs:
        if run.status != FINISHED:
            raise UserError(f"{run.folder} is {run.status}: finish it with {to_resume(run.folder)}")
    return group(runs)


def _by_seed(member: Group) -> Iterator[tuple[str, list[Run]]]:
    """The runs of each seed in the order of their folds, which must be complete.

    Of runs that repeat a training, as those of two sweeps in one folder may, the one whose folder
    comes last is taken.
    """
    num = int(member.settings["data.folds"])
    for seed in sorted({run.seed for run in member.runs}):
        runs = [run for run in member.runs if run.seed == seed]
        of_fold = {int(run.settings["data.fold"]): run for run in runs}
        missing = sorted(set(range(num)) - set(of_fold))
        if missing:
            raise UserError(
                f"{member.data} {member.model}, seed {seed}: fold {', '.join(map(str, missing))} of "
                f"{num} is missing: type the sweep's command with "
                f"'data.fold=choice({','.join(map(str, missing))})'"
            )
        yield seed, [of_fold[fold] for fold in range(num)]


def _pool(
    label: str, name: str, runs: Sequence[Run], overrides: Sequence[str], trust: Sequence[str]
) -> Pooled:
    trained = [TrainedRun(run.folder, overrides=overrides, trust=trust) for run in runs]
    for one in trained:
        require_own_splits(one)
    parts = [one.predict_split("val") for one in trained]
    rows = np.concatenate([one.data.splits["val"].rows for one in trained])
    if len(np.unique(rows)) < len(rows) or len({part.class_names for part in parts}) > 1:
        raise UserError(
            f"{label}: the folds share images or differ in their classes, so they do not belong to "
            "one split; train them with one command"
        )
    found = Predictions(
        OUT_OF_FOLD,
        parts[0].class_names,
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    names = [name for one in trained for name in names_of(one.data, "val")]
    accuracies = [float(part.correct.mean()) for part in parts]
    return Pooled(label, name, found, names, trained[0], accuracies)
