"""Cross-validation and groups: what validates, what stays held out, and what stays together."""

import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import composed
from glimpse.assembly import build_data
from glimpse.data.groups import drawn_groups, group_numbers
from glimpse.data.module import ImageDataModule
from glimpse.data.splits import Drawn, Folds, draw
from glimpse.errors import UserError
from makers import save_image, shades

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), (60, 30, 11)))
GROUPS = np.random.default_rng(1).integers(17, size=len(LABELS))


def drawn(parts: tuple[str, ...] = ("train",), **options: Any) -> Drawn:
    kept = {name: np.arange(len(LABELS) if name == "train" else 12) for name in parts}
    common: dict[str, Any] = {"val_fraction": 0.1, "test_fraction": 0.2, "seed": 0}
    return draw(LABELS, kept, **(common | options))


def rows(found: Drawn, split: str) -> set[int]:
    return set(found.splits[split].rows.tolist())


@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.parametrize("parts", [("train",), ("train", "heldout"), ("train", "heldout", "test")])
def test_each_training_image_validates_once_and_the_test_set_stays(
    parts: tuple[str, ...], groups: NDArray[np.int64] | None
) -> None:
    found = [drawn(parts, folds=Folds(5, fold), groups=groups) for fold in range(5)]
    tests = [one.splits["test"] for one in found]
    assert {test.part for test in tests} == {parts[-1]}
    assert all(np.array_equal(test.rows, tests[0].rows) for test in tests)
    held_out = rows(found[0], "test") if parts == ("train",) else set()
    validated = sorted(row for one in found for row in rows(one, "val"))
    assert validated == sorted(set(range(len(LABELS))) - held_out)
    for one in found:
        assert rows(one, "train") == set(validated) - rows(one, "val")
        assert one.splits["val"].part == "train"
        if groups is None:
            shares = np.bincount(LABELS[one.splits["val"].rows], minlength=3)
            assert np.ptp(shares * 5 / np.bincount(LABELS[validated], minlength=3)) < 1


def test_without_anything_held_out_there_is_no_test_set() -> None:
    found = drawn(test_fraction=0.0, folds=Folds(4, 3))
    assert set(found.splits) == {"train", "val"}
    assert "fold 3 of 0 to 3" in found.splits["val"].origin


@pytest.mark.parametrize("options", [{}, {"folds": Folds(3, 1)}, {"val_fraction": 0.6}])
def test_no_group_is_on_two_sides(options: dict[str, Any]) -> None:
    found = drawn(groups=GROUPS, **options)
    sides = [set(GROUPS[split.rows].tolist()) for split in found.splits.values()]
    assert sum(map(len, sides)) == len(set(GROUPS.tolist()))
    sizes = {name: len(split.rows) / len(LABELS) for name, split in found.splits.items()}
    assert sizes["test"] == pytest.approx(0.2, abs=0.08)
    if options == {}:
        assert sizes["val"] == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": Folds(20, 0), "groups": GROUPS}, "type data.folds=12"),
        ({"folds": Folds(90, 0)}, "data.folds=90"),
        (
            {"groups": np.arange(len(LABELS)) % 2, "test_fraction": 0.1},
            "because the 2 groups are large",
        ),
    ],
)
def test_too_many_folds_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        drawn(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "groups", "typed"),
    [
        (
            [0] * 3 + [1] * 4,
            None,
            "no class has more than 4 images, expected 5 or more: type data.folds=4",
        ),
        (
            [0] * 9 + [1] * 9,
            [0] * 9 + [1] * 9,
            "no more than 2 groups, expected 5 or more: type data.folds=2",
        ),
        (
            [0] * 9 + [1] * 9,
            [0] * 18,
            "no more than 1 group, expected 5 or more: remove data.folds",
        ),
        ([0, 1, 2], None, "no class has more than 1 image, expected 5 or more: remove data.folds"),
    ],
)
def test_a_number_of_folds_that_is_advised_works(
    labels: list[int], groups: list[int] | None, typed: str
) -> None:
    def divided(num: int) -> Drawn:
        return draw(
            np.array(labels), {"train": np.arange(len(labels))}, val_fraction=0, test_fraction=0, seed=0,
            folds=Folds(num, 0), groups=groups if groups is None else np.array(groups),
        )  # fmt: skip

    with pytest.raises(UserError, match=re.escape(typed) + "$"):
        divided(5)
    if found := re.search(r"data\.folds=(\d)$", typed):
        assert len(divided(int(found[1])).splits["val"].rows)


def test_a_class_smaller_than_the_folds_is_said() -> None:
    found = drawn(folds=Folds(10, 0))
    assert found.remarks == ["1 class has fewer than 10 images, so some folds have no images of it"]


# Groups by column or by name ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (r"patient\d+", ["p/patient1_a.png", "q/patient2_b.png", "q/patient1_c.png"]),
        (r"(\d+)_", ["1_a.png", "2_b.png", "x/1_c.png"]),
        (r"(?P<group>[ab])-(\d)", ["a-1.png", "b-1.png", "a-2.png"]),
        (r"^[^/]+", ["s1/x.png", "s2/x.png", "s1/y.png"]),
    ],
)
def test_a_pattern_finds_the_group(asked: str, names: list[str]) -> None:
    paths = [Path("/data/photos", name) for name in names]
    assert group_numbers(asked, None, paths).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("asked", "column", "names", "message"),
    [
        ("x(", None, ["a.png", "b.png"], "data.groups=x("),
        ("(a)(b)", None, ["ab.png", "cab.png"], "at most one group in parentheses"),
        ("a", None, ["a1.png", "b2.png"], "in 1 of 2 file names, for example b2.png"),
        ("1", None, ["1a.png", "1b.png"], "all images are in one group, 1"),
        ("patient", ["7", " ", "8"], [], "empty in 1 of 3 rows, first in row 2"),
        ("patient", None, None, "no column of this name and no file names"),
    ],
)
def test_groups_that_are_not_found_are_one_line(
    asked: str, column: list[str] | None, names: list[str] | None, message: str
) -> None:
    paths = None if names is None else [Path("/data/x", name) for name in names]
    with pytest.raises(UserError, match=re.escape(message)) as error:
        group_numbers(asked, column, paths)
    assert "\n" not in str(error.value)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """40 images of 8 patients in two classes; the file names hold the scene."""
    lines = ["path,patient,label"]
    for row in range(40):
        name, label = f"images/scene{row % 5}_{row}.png", row % 2
        save_image(shades([label], 2, size=8, channels=1, seed=row)[0], tmp_path / name)
        lines.append(f"{name},p{row // 5},{'ab'[label]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return tmp_path / "labels.csv"


def data_of(table: Path, *options: str) -> ImageDataModule:
    config, _ = composed("data=csv", f"data.train={table}", f"data_dir={table.parent}", *options)
    return build_data(config)


@pytest.mark.parametrize("groups", ["patient", r"scene\d"])
def test_a_table_is_divided_by_a_column_or_by_its_paths(table: Path, groups: str) -> None:
    validated: list[int] = []
    for fold in range(3):
        data = data_of(
            table, f"data.groups='{groups}'", "data.folds=3", f"data.fold={fold}",
            "data.test_fraction=0.25",
        )  # fmt: skip
        key = {"patient": lambda row: row // 5}.get(groups, lambda row: row % 5)
        sides = {name: {key(int(r)) for r in s.rows} for name, s in data.splits.items()}
        assert not sides["train"] & sides["val"]
        assert not sides["test"] & (sides["train"] | sides["val"])
        validated += data.splits["val"].rows.tolist()
        assert f"fold {fold} of 0 to 2" in data.describe()
    assert len(validated) == len(set(validated)) == 40 - len(data.splits["test"].rows)


def test_groups_that_an_official_test_set_shares_are_told(table: Path) -> None:
    rows = table.read_text().splitlines()
    (table.parent / "test.csv").write_text("\n".join([rows[0], *rows[1:12]]))
    official = f"data.test={table.parent / 'test.csv'}"
    data = data_of(table, official, "data.groups=patient", "data.val_fraction=0.2")
    [remark] = [line for line in data.all_remarks if "data.groups" in line]
    assert (
        "of data.groups=patient in the training set and in the test set (the official test"
        in remark
    )
    assert "whose score is therefore too good: p" in remark
    without = ["path,label", *(line.replace(line.split(",")[1] + ",", "") for line in rows[1:12])]
    (table.parent / "test.csv").write_text("\n".join(without))
    unknown = data_of(table, official, "data.groups=patient", "data.val_fraction=0.2")
    assert not [line for line in unknown.all_remarks if "data.groups" in line]


def test_a_row_without_a_group_is_named_by_its_line(table: Path) -> None:
    rows = table.read_text().splitlines()
    rows[30] = rows[30].replace(",p5,", ",,")
    rows = [
        f"{row},{('train', 'test')[number < 9] if number else 'split'}"
        for number, row in enumerate(rows)
    ]
    table.write_text("\n".join(rows))
    with pytest.raises(
        UserError, match=r"labels\.csv, line 31: the column 'patient' is empty: fill it in"
    ):
        data_of(table, "data.groups=patient", "data.split=split", "data.val_fraction=0.2")


def test_a_column_of_groups_is_not_a_pixel(tmp_path: Path) -> None:
    lines = ["patient,label,p1,p2,p3,p4"]
    lines += [f"{row // 4},{row % 2},{row},1,2,3" for row in range(32)]
    (tmp_path / "pixels.csv").write_text("\n".join(lines))
    data = data_of(tmp_path / "pixels.csv", "data.groups=patient", "data.folds=4", "data.fold=0")
    assert (data.spec.height, data.spec.width) == (2, 2)
    found = {int(r) // 4 for r in data.splits["val"].rows}
    assert not found & {int(r) // 4 for r in data.splits["train"].rows}


def test_a_column_of_groups_without_a_header_is_a_number(tmp_path: Path) -> None:
    lines = [f"{row % 2}," + "7," * 16 + f"{row // 4}" for row in range(32)]
    (tmp_path / "pixels.csv").write_text("\n".join(lines))
    options = ("data.label=1", "data.groups=18", "data.folds=4", "data.fold=0")
    data = data_of(tmp_path / "pixels.csv", *options)
    found = {int(r) // 4 for r in data.splits["val"].rows}
    assert not found & {int(r) // 4 for r in data.splits["train"].rows}


@pytest.mark.parametrize(
    ("sizes", "val", "test"),
    [([3, 4], 0.36, 0.29), ([3, 4], 0.01, 0.29), ([2] * 101, 0.1, None), ([2] * 101, 0.9, None)],
)
def test_the_fraction_that_a_message_says_to_type_works(
    sizes: list[int], val: float, test: float | None
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    kept = {"train": np.arange(len(labels))} | ({} if test else {"heldout": np.arange(3)})
    options: dict[str, Any] = {"test_fraction": test, "seed": 0}
    with pytest.raises(UserError, match=r"type data\.val_fraction=") as error:
        draw(labels, kept, val_fraction=val, **options)
    typed = float(str(error.value).split("type data.val_fraction=")[1])
    assert "val" in draw(labels, kept, val_fraction=typed, **options).splits


def test_a_dataset_without_files_has_no_groups() -> None:
    config, _ = composed("data=digits", "data.groups=patient")
    with pytest.raises(UserError, match="no column of this name and no file names"):
        build_data(config)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.33, 0.45, 0.7])
def test_whole_groups_come_near_the_fraction(fraction: float) -> None:
    sizes = [50, *[5] * 10, 17, 23, 1, 9]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.arange(len(groups)) % 2
    found = draw(
        labels,
        {"train": np.arange(len(labels))},
        val_fraction=0,
        test_fraction=fraction,
        seed=0,
        groups=groups,
    )
    share = len(found.splits["val"].rows) / len(labels)
    assert abs(share - fraction) < 0.03
    assert f"{share:.0%} of all images" in found.splits["val"].origin


@pytest.mark.parametrize("fraction", [0.02, 0.1])
def test_many_small_groups_give_the_fraction_of_each_class(fraction: float) -> None:
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(1000), 2))
    labels = np.arange(2000) % 4
    found = draw(
        labels,
        {"train": np.arange(2000)},
        val_fraction=fraction,
        test_fraction=0.1,
        seed=0,
        groups=groups,
    )
    for split, share in (("val", fraction), ("test", 0.1)):
        counts = np.bincount(labels[found.splits[split].rows], minlength=4)
        assert abs(counts - 500 * share).max() <= 6  # without balance, up to 15
        assert found.splits[split].origin.startswith(f"{share:.0%} of all images")


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_drawn_as_from_a_table_of_all_groups_and_classes(seed: int) -> None:
    """Recorded runs rely on these splits; the table itself may not fit into memory."""
    random = np.random.default_rng(seed)
    groups, labels = random.integers(150, size=1200), random.integers(40, size=1200)
    is_drawn = drawn_groups(groups, labels, 0.2, seed=seed, typed="")
    counts = np.zeros((150, 40), np.int64)
    np.add.at(counts, (groups, labels), 1)
    expected, room, missing = [], round(0.2 * 1200), counts.sum(0) * 0.2
    left = np.random.default_rng(seed).permutation(150).tolist()
    for is_balanced in (True, False):
        for group in list(left):
            nearer = counts[group] @ (2 * missing - counts[group]) > 0
            if counts[group].sum() <= room and (nearer or not is_balanced):
                expected.append(group)
                left.remove(group)
                missing = missing - counts[group]
                room -= counts[group].sum()
    smallest = min(left, key=lambda group: counts[group].sum())
    expected += [smallest] * bool(counts[smallest].sum() < 2 * room)
    assert set(groups[is_drawn].tolist()) == set(expected)


def test_many_groups_of_many_classes_need_little_memory() -> None:
    groups = np.arange(20_000)
    tracemalloc.start()
    drawn_groups(groups, groups % 1000, 0.2, seed=0, typed="")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # all groups by all classes would take 160 MB


def test_a_fraction_near_1_leaves_a_group() -> None:
    groups = np.arange(10)
    found = draw(
        groups % 2,
        {"train": np.arange(10)},
        val_fraction=0,
        test_fraction=0.97,
        seed=0,
        groups=groups,
    )
    assert [len(found.splits[name].rows) for name in ("train", "val")] == [1, 9]


@pytest.mark.parametrize("fraction", [0.1, 0.9])
def test_a_rare_class_is_on_both_sides(fraction: float) -> None:
    labels = np.array([0] * 40 + [1] * 40 + [2] * 3 + [3] * 2)
    kept = {"train": np.arange(len(labels))}
    found = draw(labels, kept, val_fraction=0, test_fraction=fraction, seed=0)
    for split in ("train", "val"):
        assert set(labels[found.splits[split].rows]) == {0, 1, 2, 3}
    rows = np.concatenate([found.splits[split].rows for split in ("train", "val")])
    assert sorted(rows) == list(range(len(labels)))


def test_a_single_image_is_in_no_fold() -> None:
    labels = np.array([0] * 9 + [1] * 9 + [2])
    kept = {"train": np.arange(len(labels))}
    for fold in range(3):
        found = draw(labels, kept, val_fraction=0, test_fraction=0, seed=0, folds=Folds(3, fold))
        assert 18 in found.splits["train"].rows
        assert found.only_trained == [2]
