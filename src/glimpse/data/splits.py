"""The selection of classes, and the split into training, validation and test sets.

Random splits are drawn with `split_seed` and stratified by class. If `val_fraction` is above 0, a
fraction of the training set is the validation set, and the official held-out set is the test set.
If it is 0, the official held-out set is the validation set. A third labelled set is the test set in
either case. In a dataset without a held-out set, `test_fraction` of the images are held out; with a
third labelled set, they are held out of the training images for validation. A class with a single
image is in training only.

With `folds`, one fold of the training set is the validation set, and held-out images stay held out.
With `groups`, all images of a group are on the same side of every random split, so the sizes of the
splits are only close to the fractions.
"""

import difflib
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from glimpse.data.groups import drawn_groups
from glimpse.errors import UserError
from glimpse.text import class_name, is_number, plural, some

IN_WORDS = {"train": "training", "val": "validation", "test": "test"}  # the splits, for sentences


@dataclass(frozen=True)
class Split:
    """The images of a part that form the training, validation or test set: rows (M,) int64."""

    part: str
    rows: NDArray[np.int64]
    origin: str  # the origin of these images, as text for users


@dataclass(frozen=True)
class Folds:
    """Cross-validation: the number of folds, and the one to validate on, counted from 0."""

    num: int
    fold: int


@dataclass(frozen=True)
class Drawn:
    """The splits by name, with the images that statistics may use and remarks for users.

    `not_held_out` are the images of all classes that statistics may use, as (M,) rows of the
    training part. `only_trained` are the labels that have too few images to be held out.
    """

    splits: dict[str, Split]
    not_held_out: NDArray[np.int64]
    only_trained: list[int]
    remarks: list[str] = field(default_factory=list)


# The names that people give to splits, in lower case and without spaces and punctuation, and the
# words that they add to these names.
SPELLINGS = {
    "train": ("train", "training", "trn", "tr", "fit"),
    "val": (
        "val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation", "vld",
        "tune", "tuning", "publictest",
    ),
    "test": ("test", "testing", "tst", "te", "holdout", "heldout", "privatetest"),
}  # fmt: skip
ADDED = ("set", "data", "split", "images")
UNLABELLED = "its test images have no labels, so they are not used"
REST = "the rest"  # the origin of training images if other splits were drawn from the same part


def split_of(name: str) -> str | None:
    """Return the split that a name means in any spelling: train, val or test; None for others."""
    plain = re.sub(r"[\W_]+", "", name.lower())
    words = {plain, *(plain.removesuffix(word) for word in ADDED)}
    return next((split for split, names in SPELLINGS.items() if words & set(names)), None)


def kept_labels(names: Sequence[str], classes: Sequence[str] | None) -> list[int]:
    """Return the labels of the classes in `data.classes`, in the same order.

    Raises:
        UserError: a class does not exist, is listed twice, or is the only one.
    """
    if classes is None:
        return list(range(len(names)))
    classes = [_as_named(name, names) for name in classes]
    for name in classes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"it has {some(names)}"
            raise UserError(f"data.classes: there is no class {name} in this dataset: {hint}")
    if len(set(classes)) < max(2, len(classes)):
        raise UserError(f"data.classes={classes}: expected two or more different classes")
    return [names.index(name) for name in classes]


def _as_named(value: object, names: Sequence[str]) -> str:
    """Return the name of the class that was typed, which Hydra may have read as another value.

    It reads true as a truth value, 2.50 as 2.5, and null as nothing.
    """
    name = class_name(value)
    if name in names or isinstance(value, str):
        return name
    if isinstance(value, int | float) and not isinstance(value, bool):
        same = [one for one in names if is_number(one) and float(one) == value]
    else:
        spellings = ("null", "none") if value is None else (name.lower(),)
        same = [one for one in names if one.lower() in spellings]
    return same[0] if len(same) == 1 else name


def draw(
    labels: NDArray[np.int64],
    kept: Mapping[str, NDArray[np.int64]],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    folds: Folds | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Drawn:
    """Split a dataset into training, validation and test sets.

    Args:
        labels: (N,), the labels of the training part.
        kept: For each existing part ("train", "heldout", "test"), the rows of the selected classes.
        val_fraction: Fraction of the training images, or of all images if a held-out set is drawn
            too.
        test_fraction: Fraction of all images, used if there is no held-out part.
        seed: Seed for the random splits.
        folds: The folds of cross-validation, in place of `val_fraction`; None: no folds.
        groups: (N,), the group of each image of the training part. A group is never divided. None:
            every image by itself.

    Raises:
        UserError: the fractions leave no training images, or too few images of a class or groups.
    """
    third = Split("test", kept["test"], "the official test set") if "test" in kept else None
    heldout, train, few = _held_out(
        labels,
        kept,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        folds=folds,
        groups=groups,
    )
    is_drawn = heldout is not None and heldout.part == "train"
    whole = np.arange(len(labels))
    if heldout and is_drawn:
        whole = np.setdiff1d(whole, heldout.rows)
    test, origin = third or heldout, REST
    alone: list[int] = []
    remarks: list[str] = []
    if folds is not None:
        train, rows, alone, remarks = _fold(train, labels, folds, seed, groups)
        val = Split("train", rows, f"fold {folds.fold} of 0 to {folds.num - 1}, split_seed {seed}")
    elif val_fraction == 0:
        assert heldout is not None
        val, test = heldout, third
        origin = REST if is_drawn else "all of it"
    else:
        part = 1 - test_fraction if is_drawn else 1
        train, rows, alone = _stratified(
            train, labels, val_fraction, "val_fraction", seed, part=part, groups=groups
        )
        of = "all images" if is_drawn else "training"
        drawn = val_fraction if groups is None else len(rows) / len(kept["train"])
        val = Split("train", rows, f"{drawn:.0%} of {of}, split_seed {seed}")
    if third and heldout and val is not heldout:
        remarks.append(
            f"{len(heldout.rows):,} of the official validation set unused "
            "(data.val_fraction=0 uses them for validation)"
        )
    splits = {"val": val} | ({"test": test} if test else {})
    splits["train"] = Split("train", train, origin)
    return Drawn(splits, whole, sorted({*few, *alone}), remarks)


def _held_out(
    labels: NDArray[np.int64],
    kept: Mapping[str, NDArray[np.int64]],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    folds: Folds | None,
    groups: NDArray[np.int64] | None,
) -> tuple[Split | None, NDArray[np.int64], list[int]]:
    """Take the official held-out set, or draw one if the splits need it. See `draw`.

    Returns:
        The set, the other rows of the training part, and the labels of classes with a single image.
    """
    train, has_third = kept["train"], "test" in kept
    if "heldout" in kept:
        return Split("heldout", kept["heldout"], "the official held-out set"), train, []
    if has_third and (folds is not None or val_fraction > 0):
        return None, train, []
    if folds is None and not has_third and test_fraction + val_fraction >= 1:
        raise UserError(
            f"data.test_fraction={test_fraction:g} and data.val_fraction={val_fraction:g} leave no "
            "training images: expected a sum below 1; type smaller fractions"
        )
    if test_fraction > 0:
        train, rows, few = _stratified(
            train, labels, test_fraction, "test_fraction", seed, groups=groups
        )
        drawn = test_fraction if groups is None else len(rows) / len(kept["train"])
        of = "training" if has_third else "all images"
        return Split("train", rows, f"{drawn:.0%} of {of}, split_seed {seed}"), train, few
    if folds is None:
        raise UserError("this dataset has no held-out set: type data.test_fraction=0.2")
    return None, train, []


def _fold(
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    folds: Folds,
    seed: int,
    groups: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int], list[str]]:
    """Return the rows to train on, the rows of the fold, the labels of classes with a single image,
    which is trained on, and remarks."""
    counts = np.bincount(labels[rows])
    alone = np.flatnonzero(counts == 1) if groups is None else np.array([], np.int64)
    single = np.isin(labels[rows], alone)
    parts = _parts(rows[~single], labels, folds.num, seed, groups)
    if not all(len(rest) and len(fold) for rest, fold in parts):
        raise UserError(
            f"data.folds={folds.num}: one of the groups is so large that a fold would be empty; type a smaller number "
            "of folds"
        )
    kept, drawn = parts[folds.fold]
    remarks = []
    few = int(((counts > 0) & (counts < folds.num)).sum()) - len(alone)
    if few:
        remarks.append(
            f"{few:,} {'class has' if few == 1 else 'classes have'} fewer than {folds.num} images, "
            f"so some folds have no images of {'it' if few == 1 else 'them'}"
        )
    return np.sort(np.concatenate([kept, rows[single]])), drawn, alone.tolist(), remarks


def _parts(
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    num: int,
    seed: int,
    groups: NDArray[np.int64] | None,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (the rest, the fold) of `num` folds, stratified by class, without dividing a group."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    of_rows = None if groups is None else groups[rows]
    largest = int(np.bincount(labels[rows]).max(initial=1))
    limits = [(largest, f"no class has more than {plural(largest, 'image')}")]
    if of_rows is not None:
        num_groups = len(np.unique(of_rows))
        limits.append((num_groups, f"there are no more than {plural(num_groups, 'group')}"))
    most, found = min(limits)
    if most < num:
        remedy = f"type data.folds={most}" if most > 1 else "remove data.folds"
        raise UserError(f"data.folds={num}: {found}, expected {num} or more: {remedy}")
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(n_splits=num, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class may have fewer than `num` images, which a remark reports.
        warnings.simplefilter("ignore")
        divided = list(splitter.split(rows, labels[rows], of_rows))
    return [(rows[rest], rows[fold]) for rest, fold in divided]


def _stratified(
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    fraction: float,
    key: str,
    seed: int,
    *,
    part: float = 1,
    groups: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int]]:
    """Draw a random fraction of the rows of each class.

    Args:
        rows: The rows to draw from.
        labels: The labels of all rows.
        fraction: The value of `data.<key>`, a fraction of all rows.
        key: The key, for error messages.
        seed: The seed.
        part: The fraction of all rows that `rows` contains, if some have been drawn already.
        groups: The group of each row of the part. A group is never divided. None: every row by
            itself.

    Returns:
        The remaining rows, the drawn rows, and the labels of classes with a single image, which is
        among the remaining rows.
    """
    if groups is not None:
        typed, share = f"data.{key}={fraction:g}", fraction / part
        is_drawn = drawn_groups(groups[rows], labels[rows], share, seed=seed, typed=typed)
        return rows[~is_drawn], rows[is_drawn], []
    from sklearn.model_selection import train_test_split  # takes half a second to import

    counts = np.bincount(labels[rows])
    few = np.flatnonzero(counts == 1)
    alone = np.isin(labels[rows], few)
    rows, single = rows[~alone], rows[alone]
    size = _num_drawn(fraction / part, len(rows))
    num_classes = int((counts > 1).sum())
    if not num_classes:
        raise UserError(
            f"data.{key}={fraction:g}: every class has a single image, so none can be held out: add images"
        )
    if not (num_classes <= size <= len(rows) - num_classes):
        raise UserError(
            f"data.{key}={fraction:g} holds out {size:,} of {len(rows):,} images, but each of "
            f"{num_classes:,} classes needs one in either part: {_remedy(num_classes, len(rows), part, size, key)}"
        )
    kept, drawn = train_test_split(rows, test_size=size, stratify=labels[rows], random_state=seed)
    _exchange_missing(kept, drawn, labels, seed)
    return np.sort(np.concatenate([kept, single])), np.sort(drawn), few.tolist()


def _exchange_missing(
    kept: NDArray[np.int64], drawn: NDArray[np.int64], labels: NDArray[np.int64], seed: int
) -> None:
    """Give either side an image of each class, in place of one of its most frequent class.

    A fraction of a rare class may round to no image.
    """
    random = np.random.default_rng(seed)
    for here, there in ((drawn, kept), (kept, drawn)):
        for label in np.setdiff1d(labels[there], labels[here]):
            most = np.bincount(labels[here]).argmax()
            coming = random.choice(np.flatnonzero(labels[there] == label))
            going = random.choice(np.flatnonzero(labels[here] == most))
            here[going], there[coming] = there[coming], here[going]


def _num_drawn(share: float, num_images: int) -> int:
    return math.ceil(round(share * num_images, 6))  # 0.1 / 0.7 of 70 is a little over 10


def _remedy(num_classes: int, num_images: int, part: float, size: int, key: str) -> str:
    """Return what to type in place of a fraction that draws `size` images, too few or too many."""
    most = num_images - num_classes
    if num_classes > most:
        return "add images to the classes that have one or two"
    wanted = part * (num_classes if size < num_classes else most) / num_images
    fractions = (
        rounded(wanted * 10**digits) / 10**digits
        for digits in range(2, 9)
        for rounded in (math.ceil, math.floor)
    )
    fits = (f for f in fractions if num_classes <= _num_drawn(f / part, num_images) <= most)
    return f"type data.{key}={next(fits):g}"
