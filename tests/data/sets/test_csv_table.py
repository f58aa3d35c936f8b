"""Tables of pixels or of files; every fault is named by file and line."""

import gzip
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glimpse.data.reading import cache_key
from glimpse.data.sets.csv_table import CsvTable
from glimpse.data.splits import kept_labels
from glimpse.data.tables.columns import find_columns
from glimpse.data.tables.table import Table
from glimpse.errors import UserError
from makers import make_sign_mnist, save_image, write_table


def table(file: Path, **options: Any) -> CsvTable:
    common = {"data_dir": str(file.parent), "seed": 0, "batch_size": 4, "val_fraction": 0.0}
    data = CsvTable(train=str(file), **(common | options))
    data.prepare_data()
    data.setup()
    return data


def test_an_empty_name_of_a_table_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", [0, 2, 1] * 4, 3, seed=0)
    with pytest.raises(UserError, match="is a folder, expected a table"):
        table(tmp_path / "table.csv", val="")


def test_pixels_labels_and_names(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, [0, 2, 1] * 4, 3, seed=0)
    data = table(path, test_fraction=0.25)
    assert (data.spec.channels, data.spec.height, data.spec.width) == (1, 28, 28)
    assert data.spec.class_names == ("0", "1", "2")
    cells = np.loadtxt(path, delimiter=",", skiprows=1)
    for split in data.splits:
        for batch in data.batches.loader(split):
            rows = cells[batch.indices.numpy()]
            assert np.array_equal(batch.labels, rows[:, 0])
            assert np.array_equal(batch.images.reshape(len(rows), -1), rows[:, 1:])


def test_labels_with_gaps_keep_their_outputs(tmp_path: Path) -> None:
    make_sign_mnist(tmp_path, per_class=2)
    folder = tmp_path / "sign-language-mnist"
    letters = [chr(ord("A") + i) for i in range(26)]
    val = str(folder / "sign_mnist_test.csv")
    data = table(folder / "sign_mnist_train.csv", val=val, class_names=letters)
    assert data.spec.num_classes == 26
    counts = np.bincount(data.labels("train"), minlength=26)
    assert [letters[i] for i in np.flatnonzero(counts == 0)] == ["J", "Z"]


def test_a_table_of_files(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    lines = ["label,path"]
    for i in range(12):
        Image.new("L", (9, 7), color=i).save(tmp_path / "images" / f"{i}.png")
        lines.append(f"{'owl' if i % 2 else 'cat'},images/{i}.png")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    data = table(tmp_path / "table.csv", test_fraction=0.5)
    assert data.spec.class_names == ("cat", "owl")
    [batch] = data.batches.loader("train").fetch(iter([np_rows(data)]))
    assert [int(image[0, 0, 0]) % 2 for image in batch.images] == batch.labels.tolist()


def np_rows(data: CsvTable) -> Any:
    import torch

    return torch.from_numpy(data.splits["train"].rows)


def test_colour_pixels(tmp_path: Path) -> None:
    header = "label," + ",".join(f"p{i}" for i in range(12))
    rows = [f"{i % 2}," + ",".join(str(j + i) for j in range(12)) for i in range(8)]
    (tmp_path / "table.csv").write_text("\n".join([header, *rows]))
    data = table(tmp_path / "table.csv", shape=[3, 2, 2], test_fraction=0.5)
    batch = next(iter(data.batches.loader("val")))
    assert batch.images.shape[1:] == (2, 2, 3)
    with pytest.raises(UserError, match=r"12 columns of pixels, which is not 1×3×3.*data\.shape"):
        table(tmp_path / "table.csv")
    with pytest.raises(UserError, match=r"data\.shape=\[4, 1, 3\]: expected \[C,H,W\] with 1 or 3"):
        table(tmp_path / "table.csv", shape=[4, 1, 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,a,b,c,d\n0,1,2,3,4\n1,1,,3,4\n", "line 3: b is '', expected an integer"),
        ("label,a,b,c,d\n0,1,two,3,4\n", "line 2: b is 'two', expected"),
        ("label,a,b,c,d\n0,1,2,3,256\n", "line 2: d is '256', expected"),
        ("label,a,b,c,d\n0,1,2,3,-1\n", "line 2: d is '-1', expected"),
        ("label,a,b,c,d\n0,1,2.5,3,1\n", "line 2: b is '2.5', expected"),
        ("label,a,b,c,d\n0,1,2,3\n", "line 2: 4 cells, expected 5"),
        ("label,a,a,c,d\n0,1,2,3,4\n", "line 1: duplicate column 'a'"),
        ("name,a,b,c,d\n0,1,2,3,4\n", "no column 'label'"),
        ("label,a,b,c,d\n0,1,2,3,4\n-1,1,2,3,4\n", "line 3: the label '-1' is negative"),
        ("label,a,b,c,d\n0,1,2,3,4\n-100,1,2,3,4\n", "line 3: the label '-100' is negative"),
        ("label,a,b,c,d\n0,1,2,3,4\n,1,2,3,4\n", "line 3: the column 'label' is empty"),
        (
            "label,a,b,c,d\n0,1,2,3,4\n10000000000000000,1,2,3,4\n",
            "line 3: the label '10000000000000000' is too large",
        ),
        ("label,path\n0,\n", "line 2: the column 'path' is empty"),
        ("", "line 1: expected a header"),
        ("label,a,b,c,d\n", "has a header but no rows"),
    ],
)
def test_a_fault_is_named_by_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        table(path, shape=[1, 2, 2])
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_label_beyond_the_names_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", [0, 1, 7], 8, seed=0)
    with pytest.raises(UserError, match="line 4: the label '7' is not one of the 3 classes"):
        table(tmp_path / "table.csv", class_names=["a", "b", "c"])


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 2, 3]])
def test_labels_are_names_or_positions_but_never_both(tmp_path: Path, labels: list[int]) -> None:
    write_table(tmp_path / "table.csv", labels * 5, 3, seed=0)
    data = table(tmp_path / "table.csv", class_names=[1, 2, 3])
    assert data.spec.class_names == ("1", "2", "3")
    assert data.contents.parts["train"].labels.tolist() == [0, 1, 2] * 5


def test_the_mark_that_excel_writes_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, [0, 1] * 4, 2, seed=0)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert table(path, test_fraction=0.5).spec.num_classes == 2


def test_a_missing_table_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"data.train=.*no such table; download it from https://example\.org"
    ):
        table(tmp_path / "none.csv", source="https://example.org")


def test_words_among_numbers_are_names_not_positions(tmp_path: Path) -> None:
    path = tmp_path / "cards.csv"
    path.write_text("label,p1\n" + "2,1\n10,2\nJ,3\n" * 4 + "\n")  # and a blank line at the end
    data = table(path, test_fraction=0.25)
    assert data.spec.class_names == ("10", "2", "J")
    pixels = {0: 2, 1: 1, 2: 3}  # of the class, as written above
    for batch in data.batches.loader("train"):
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            assert image.item() == pixels[label]


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("label,a\nGänse,1\nEnten,2\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"table\.csv, line 2: .*\\x.*: the text is not UTF-8"):
        table(path)


# Tables as people have them ---------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> list[tuple[str, str]]:
    """(file in images/, label) of 20 small pictures, cat and dog in turn; a dog is brighter."""
    rows = []
    for number in range(20):
        save_image(
            np.full((4, 4, 3), 60 + 120 * (number % 2), np.uint8),
            tmp_path / f"images/{number:02}.png",
        )
        rows.append((f"{number:02}.png", ("cat", "dog")[number % 2]))
    return rows


def written(tmp_path: Path, header: str, rows: list[str], name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join([header, *rows] if header else rows) + "\n", encoding="utf-8")
    return path


def are_right(data: CsvTable, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    assert data.spec.class_names == classes
    assert sum(len(split.rows) for split in data.splits.values()) == 20
    for split in data.splits:
        for batch in data.batches.loader(split):
            bright = (batch.images.float().mean((1, 2, 3)) > 120).long()
            assert bright.tolist() == batch.labels.tolist()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_the_delimiter_is_found(
    tmp_path: Path, pictures: list[tuple[str, str]], delimiter: str, quote: str
) -> None:
    lines = [
        delimiter.join(f"{quote}{cell}{quote}" for cell in (f"images/{name}", label))
        for name, label in [("path", "label"), *pictures]
    ]
    lines[0] = lines[0].replace("images/", "")
    are_right(table(written(tmp_path, "", lines), test_fraction=0.2))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["", "sep=;\n"])
def test_what_spreadsheets_write(
    tmp_path: Path, pictures: list[tuple[str, str]], encoding: str, first: str
) -> None:
    lines = [f"images/{name};{label.replace('cat', 'Käse')};;" for name, label in pictures]
    text = first + "\r\n".join(["path;label;;", *lines, ";;;", ""])
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    data = table(tmp_path / "labels.csv", test_fraction=0.2)
    are_right(data, ("Käse", "dog"))
    assert "2 columns without a name skipped" in data.describe()


@pytest.mark.parametrize(
    ("label_of", "classes"),
    [
        ({"cat": "1", "dog": "2"}, ("1", "2")),
        ({"cat": "101", "dog": "250"}, ("101", "250")),
        ({"cat": "9", "dog": "10"}, ("9", "10")),
        ({"cat": "001", "dog": "002"}, ("001", "002")),
        ({"cat": "0.0", "dog": "1.0"}, ("0.0", "1.0")),
        ({"cat": "-1", "dog": "1"}, ("-1", "1")),
        ({"cat": " cat ", "dog": "dog"}, ("cat", "dog")),
        ({"cat": "Persian cat", "dog": "great dog, old"}, ("Persian cat", "great dog, old")),
        ({"cat": "0,0", "dog": "1,0"}, ("0,0", "1,0")),
    ],
)
def test_labels_stand_as_they_are_and_only_those_that_occur(
    tmp_path: Path,
    pictures: list[tuple[str, str]],
    label_of: dict[str, str],
    classes: tuple[str, ...],
) -> None:
    lines = [f"images/{name};{label_of[label]}" for name, label in pictures]
    lines[3] += "  "
    are_right(table(written(tmp_path, "path; label", lines), test_fraction=0.2), classes)


@pytest.mark.parametrize(
    "options", [{"path": "id", "label": "breed"}, {"path": "id"}, {"label": "breed"}, {}]
)
@pytest.mark.parametrize("suffix", [".png", "png"])
def test_ids_without_folder_and_ending(
    tmp_path: Path, pictures: list[tuple[str, str]], options: dict[str, str], suffix: str
) -> None:
    lines = [f"{name.removesuffix('.png')},{label}" for name, label in pictures]
    path = written(tmp_path, "id,breed", lines)
    data = table(path, folder="images", suffix=suffix, test_fraction=0.2, **options)
    are_right(data)
    assert ("paths in the column id" in data.describe()) == ("path" not in options)
    assert ("labels in the column breed" in data.describe()) == ("label" not in options)
    with pytest.raises(
        UserError, match=r"type data\.folder=images data\.suffix=\.png|data\.path=id"
    ):
        table(path, test_fraction=0.2, **options)


def test_a_table_without_a_header(tmp_path: Path, pictures: list[tuple[str, str]]) -> None:
    data = table(
        written(tmp_path, "", [f"images/{name},{label}" for name, label in pictures]),
        test_fraction=0.2,
    )
    are_right(data)
    assert "no header: the columns are 1, 2" in data.describe()
    pixels = written(tmp_path, "", [f"{i % 2},{i},2,3,4" for i in range(20)], "pixels.csv")
    with pytest.raises(UserError, match=r"its columns are 1, 2, 3, 4, 5: type data\.label="):
        table(pixels)
    assert table(pixels, label=1, shape=[1, 2, 2], test_fraction=0.2).spec.class_names == ("0", "1")


@pytest.mark.parametrize("spelling", [("train", "valid", "test"), ("Training ", "VAL", "Test")])
@pytest.mark.parametrize("pixels", [False, True])
def test_a_column_of_splits(
    tmp_path: Path, pictures: list[tuple[str, str]], spelling: tuple[str, ...], pixels: bool
) -> None:
    parts = [spelling[(0, 0, 0, 1, 2)[number // 2 % 5]] for number in range(20)]
    cells = [f"images/{name}" for name, _ in pictures]
    if pixels:
        cells = [str(60 + 120 * (number % 2)) for number in range(20)]
    lines = [f"{c},{label},{p}" for c, (_, label), p in zip(cells, pictures, parts, strict=True)]
    path = written(tmp_path, "a1,label,set" if pixels else "path,label,set", lines)
    data = table(path, split="set")
    are_right(data)
    sizes = {name: len(split.rows) for name, split in data.splits.items()}
    assert sizes == {"train": 12, "val": 4, "test": 4}
    path.write_text(path.read_text().replace(f",{parts[8]}\n", ",later\n"))
    with pytest.raises(UserError, match=r"line 10: the column set is 'later', expected train, val"):
        table(path, split="set")


@pytest.mark.parametrize("label", ["", "-1"])
def test_test_rows_without_labels_are_left_out_and_that_is_said(
    tmp_path: Path, pictures: list[tuple[str, str]], label: str
) -> None:
    def of(parts: list[str]) -> CsvTable:
        lines = [
            f"images/{name},{label if part[0] == '-' else word},{part.removeprefix('-')}"
            for (name, word), part in zip(pictures, parts, strict=True)
        ]
        path = written(tmp_path, "path,label,split", lines)
        return table(path, split="split", groups="path", test_fraction=0.25)

    for _ in range(2):  # read, then from the cache
        data = of(["-test"] * 4 + ["train"] * 16)
        assert {name: len(split.rows) for name, split in data.splits.items()} == {
            "train": 12,
            "val": 4,
        }
        assert data.spec.class_names == ("cat", "dog")
        shades = data.part("train").images[data.splits["train"].rows].mean((1, 2, 3))
        assert ((shades > 120) == data.labels("train")).all()
        assert "its test images have no labels, so they are not used" in data.describe()
    for refused in (["-test"] * 3 + ["test"], ["-val"] * 4):
        with pytest.raises(UserError, match=r"line 2: the (column 'label' is empty|label '-1')"):
            of(refused + ["train"] * (20 - len(refused)))


@pytest.mark.parametrize("label", ["", "-1"])
def test_a_test_table_without_labels_is_left_out_and_that_is_said(
    tmp_path: Path, pictures: list[tuple[str, str]], label: str
) -> None:
    lines = [f"images/{name},{word}" for name, word in pictures]
    train = written(tmp_path, "path,label", lines[:16], "train.csv")
    unlabelled = [f"images/{name},{label}" for name, _ in pictures[16:]]
    test = written(tmp_path, "path,label", unlabelled, "test.csv")
    for _ in range(2):  # read, then from the cache
        data = table(train, test=str(test), test_fraction=0.25)
        assert {name: len(split.rows) for name, split in data.splits.items()} == {
            "train": 12,
            "val": 4,
        }
        assert "its test images have no labels, so they are not used" in data.describe()
    written(tmp_path, "path,label", [*lines[16:18], *unlabelled[2:]], "test.csv")
    with pytest.raises(UserError, match=r"line 4: the (column 'label' is empty|label '-1')"):
        table(train, test=str(test))


def test_test_rows_without_labels_need_no_second_cache(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    """`glimpse data check` reads the table before it asks for the cache."""
    lines = [
        f"images/{n},{'' if i < 4 else x},{'test' if i < 4 else 'train'}"
        for i, (n, x) in enumerate(pictures)
    ]
    path = written(tmp_path, "path,label,split", lines)
    data = table(path, split="split", test_fraction=0.25)
    other = CsvTable(
        train=str(path),
        split="split",
        data_dir=str(tmp_path),
        seed=0,
        batch_size=4,
        val_fraction=0.0,
    )
    other.read()
    assert cache_key(other) == data.contents.folder.name.removeprefix("csvtable-")


def test_splits_without_validation_leave_the_test_set_alone(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [f"images/{n},{x},{'test' if i < 4 else 'train'}" for i, (n, x) in enumerate(pictures)]
    data = table(written(tmp_path, "path,label,split", lines), split="split", test_fraction=0.25)
    assert data.splits["test"].part == "test"
    assert {name: len(split.rows) for name, split in data.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }


def test_backslashes_and_one_column_a_class(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [f"images\\{name},{int(x == 'cat')}.0,{int(x == 'dog')}" for name, x in pictures]
    path = written(tmp_path, "image,cat,dog", lines)
    data = table(path, test_fraction=0.2)
    are_right(data)
    assert "labels in the columns, one per class, cat, dog" in data.describe()
    are_right(table(path, label=["cat", "dog"], test_fraction=0.2))
    lines[4] = "images/04.png,1,1"
    with pytest.raises(UserError, match=r"line 6: 2 classes \(cat, dog\)"):
        table(written(tmp_path, "image,cat,dog", lines), label=["cat", "dog"])


def test_a_missing_file_is_named_with_its_line_and_skipped_where_asked(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [f"images/{name},{label}" for name, label in pictures]
    path = written(tmp_path, "path,label", [*lines, "images/gone.png,cat"])
    with pytest.raises(
        UserError, match=r"labels\.csv, line 22, column path: 'images/gone\.png'"
    ) as error:
        table(path)
    assert "delete" not in str(error.value)
    are_right(data := table(path, on_bad_file="skip", test_fraction=0.2))
    assert "more file" not in str(error.value)
    assert "1 unreadable file skipped" in data.describe()


def test_the_message_about_a_missing_file_counts_the_others(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [f"images/{name},{label}" for name, label in pictures]
    path = written(tmp_path, "path,label", [*lines, *(f"gone/{i}.png,cat" for i in range(3))])
    with pytest.raises(UserError, match=r"line 22, .*; 2 more files of this table cannot be found"):
        table(path)


def test_advice_on_files_never_loses_others(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    """Half of the files are JPEGs, so neither ending is right for all."""
    for name, _ in pictures[1::2]:
        (tmp_path / "images" / name).rename(tmp_path / "images" / f"{Path(name).stem}.jpg")
    path = written(tmp_path, "path,label", [f"i{Path(n).stem},{label}" for n, label in pictures])
    for file in sorted((tmp_path / "images").iterdir()):
        file.rename(file.with_name(f"i{file.name}"))
    for suffix in (".png", ".jpg"):
        with pytest.raises(UserError, match="several folders or have several endings"):
            table(path, path="path", folder="images", suffix=suffix)


def test_files_in_two_folders_have_no_folder_to_type(tmp_path: Path) -> None:
    for number in range(10):
        place = tmp_path / f"part_{1 + number % 2}" / f"{number}.jpg"
        save_image(np.zeros((4, 4, 3), np.uint8), place)
    path = written(
        tmp_path, "image_id,dx", [f"{number},{'ab'[number % 2]}" for number in range(10)]
    )
    options: dict[str, Any] = {"path": "image_id", "label": "dx"}
    with pytest.raises(UserError, match="are in several folders or have several endings"):
        table(path, **options)
    for number in range(1, 9, 2):
        (tmp_path / "part_2" / f"{number}.jpg").rename(tmp_path / "part_1" / f"{number}.jpg")
    (tmp_path / "part_2" / "9.jpg").unlink()  # a file that is missing everywhere changes nothing
    with pytest.raises(UserError, match=r"type data\.folder=part_1 data\.suffix=\.jpg;"):
        table(path, **options)


def test_files_beside_the_folder_of_the_table_are_found(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    (tmp_path / "tables").mkdir()
    lines = [f"images/{name},{label}" for name, label in pictures]
    path = written(tmp_path / "tables", "path,label", lines)
    with pytest.raises(
        UserError, match=r"type data\.folder=\.\.$|type data\.folder=\.\.;"
    ) as error:
        table(path)
    assert "on_bad_file" not in str(error.value)
    are_right(table(path, folder="..", test_fraction=0.2))


def test_names_typed_in_another_encoding_or_read_as_other_values(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    """macOS types é as two characters; Hydra reads true, 2.50 and null as values."""
    nfd, nfc = "cafe\u0301", "caf\u00e9"
    labels = {"cat": nfc, "dog": "true"}
    lines = [f"images/{name},{labels[label]}" for name, label in pictures]
    path = written(tmp_path, "path,\u00e9tiquette", lines)
    data = table(path, label="e\u0301tiquette", classes=[True, nfd], test_fraction=0.2)
    assert data.spec.class_names == ("true", nfc)
    for typed, known in ((2.5, "2.50"), (1000.0, "1e3"), (None, "null"), (7, "7")):
        assert kept_labels(("other", known), [typed, "other"]) == [1, 0]
    with pytest.raises(UserError, match=r"there is no class 3\.5"):
        kept_labels(("3.50", "3.500"), [3.5])


def test_one_image_with_two_labels(tmp_path: Path, pictures: list[tuple[str, str]]) -> None:
    lines = [f"images/{name},{label}" for name, label in pictures]
    with pytest.raises(
        UserError, match=r"line 22: the label of .*00\.png differs from .*labels\.csv, line 2: "
    ):
        table(written(tmp_path, "path,label", [*lines, "images/00.png,dog"]))


def test_one_image_in_two_spellings(tmp_path: Path, pictures: list[tuple[str, str]]) -> None:
    (name, label), other = pictures[0], next(b for _, b in pictures if b != pictures[0][1])
    lines = [f"{name},{label}", *(f"{a},{b}" for a, b in pictures[1:])]
    twice = written(tmp_path, "path,label", [*lines, f"./{name},{other}"])
    with pytest.raises(UserError, match=r"differs from .*labels\.csv, line 2: "):
        table(twice, folder="images")
    again = table(
        written(tmp_path, "path,label", [*lines, f"./{name},{label}"]),
        folder="images",
        groups="path",
    )
    assert again.column("path", "train")[-1] == again.column("path", "train")[0]  # type: ignore[index]


def test_paths_may_be_the_groups(tmp_path: Path, pictures: list[tuple[str, str]]) -> None:
    rows = [f"{name},{label}" for name, label in pictures]
    file = written(tmp_path, "file,label", rows)
    are_right(table(file, folder="images", groups="file", test_fraction=0.5))


def test_the_column_of_labels_is_no_column_of_groups(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    rows = [f"{name},{label}" for name, label in pictures]
    for header, label in (("file,label", None), ("file,breed", None), ("file,breed", "breed")):
        groups = header.partition(",")[2]
        with pytest.raises(UserError, match=rf"data\.groups={groups} is the column of labels"):
            table(written(tmp_path, header, rows), folder="images", groups=groups, label=label)


def test_a_row_in_the_place_of_the_header_is_refused(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    rows = [f"{Path(name).stem}x,{label}" for name, label in pictures]
    for name, _ in pictures:
        (tmp_path / "images" / name).rename(tmp_path / "images" / f"{Path(name).stem}x.png")
    with pytest.raises(
        UserError, match=r"line 1: .* names an image, expected the names of the columns"
    ):
        table(written(tmp_path, rows[0], rows[1:]), folder="images", suffix=".png", label="cat")


def test_files_that_are_listed_again_are_counted(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [
        f"images/{name},{label},{'val' if i < 4 else 'train'}"
        for i, (name, label) in enumerate(pictures)
    ]
    path = written(tmp_path, "path,label,part", [*lines, "images/00.png,cat,train"])
    assert "1 image of train also in val" in table(path, split="part", test_fraction=0).describe()
    described = table(path, label="label", test_fraction=0.2).describe()
    advice = "data.groups=path keeps the rows of a file in one split"
    assert "1 row repeats a file" in described
    assert advice in described
    data = table(path, label="label", test_fraction=0.5, groups="path")
    assert advice not in data.describe()
    held = "train" if 0 in data.splits["train"].rows else "val"
    assert 20 in data.splits[held].rows  # the other row of the same file
    tables = {
        name: written(tmp_path, "path,label", [x[: x.rindex(",")] for x in lines], name)
        for name in "ab"
    }
    both = table(tables["a"], test=str(tables["b"])).describe()
    assert "20 images of test also in train" in both


def test_a_later_start_takes_from_the_cache_which_files_are_listed_again(
    tmp_path: Path, pictures: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"images/{name},{label}" for name, label in pictures]
    path = written(tmp_path, "path,label", [*lines, lines[0], lines[0]])
    first = table(path, test_fraction=0.2).describe()
    assert "2 rows repeat a file" in first
    passes = []
    rows = Table.rows
    monkeypatch.setattr(Table, "rows", lambda self: (passes.append(self), rows(self))[1])
    monkeypatch.delattr("glimpse.data.tables.files.one_path")
    assert table(path, test_fraction=0.2).describe() == first
    assert len(passes) == 2  # for a sample, and for the names of the files


def test_a_large_table_is_announced_once(
    tmp_path: Path,
    pictures: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(tmp_path, "path,label", [f"images/{n},{label}" for n, label in pictures])
    monkeypatch.setattr("glimpse.data.tables.table.NUM_QUICK", 10)
    table(path, test_fraction=0.2)
    assert "reading" not in capsys.readouterr().out
    monkeypatch.setattr("glimpse.data.tables.table.LARGE", 10)
    table(path, test_fraction=0.2, cache=False)
    assert capsys.readouterr().out.count(f"reading {path.name}, 0 MB") == 1


@pytest.mark.parametrize(
    ("column", "cells", "sizes"),
    [
        ("is_valid", ("False", "True"), {"train": 15, "val": 5}),
        ("Test", ("0", "1"), {"train": 12, "val": 3, "test": 5}),
        ("is_train", ("1.0", "0.0"), {"train": 12, "val": 3, "test": 5}),
    ],
)
def test_a_split_may_be_a_flag(
    tmp_path: Path,
    pictures: list[tuple[str, str]],
    column: str,
    cells: tuple[str, str],
    sizes: dict[str, int],
) -> None:
    lines = [f"images/{n},{x},{cells[i % 4 == 3]}" for i, (n, x) in enumerate(pictures[::-1])]
    data = table(
        written(tmp_path, f"path,label,{column}", lines),
        split=column,
        test_fraction=0.2,
        label="label",
    )
    assert {name: len(split.rows) for name, split in data.splits.items()} == sizes


def test_a_flag_in_a_column_of_splits_is_refused(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [f"images/{name},{label},0" for name, label in pictures]
    path = written(tmp_path, "path,label,split", lines)
    with pytest.raises(UserError, match=r"line 2: the column split is '0', expected .* is_val"):
        table(path, split="split")


@pytest.mark.parametrize(
    ("on_disk", "in_table", "suffix"),
    [
        ("{}.PNG", "{}.png", None),
        ("{}.png", "{}.PNG", None),
        ("{}.PNG", "{}", ".png"),
        ("caf\u00e9{}.png", "cafe\u0301{}.png", None),
        ("cafe\u0301{}.png", "caf\u00e9{}.png", None),
    ],
)
def test_names_as_another_system_writes_them(
    tmp_path: Path,
    pictures: list[tuple[str, str]],
    on_disk: str,
    in_table: str,
    suffix: str | None,
) -> None:
    lines = []
    for number, (name, label) in enumerate(pictures):
        (tmp_path / "images" / name).rename(tmp_path / "images" / on_disk.format(number))
        lines.append(f"{in_table.format(number)},{label}")
    path = written(tmp_path, "path,label", lines)
    are_right(table(path, folder="images", suffix=suffix, test_fraction=0.2))


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        ("00.png", "type data.folder=images"),
        ("C:\\photos\\00.png", "is it images/00.png? correct the column"),
        ("/mnt/old/00.png", "is it images/00.png? correct the column"),
        ("/mnt/old/images/00.png", "is it images/00.png? correct the column"),
        ("deep.png", "type data.folder=more/photos"),
        ("/data/photos/deep.png", "is it more/photos/deep.png? correct the column"),
        ("https://example.org/00.png", "is a web address, expected a path: download"),
        ("file:///data/00.png", "is an address, expected a path: remove file://"),
        ("IMAGES/00.Png", "is it images/00.png, in upper or lower case? correct the column"),
        ("gone.png", "restore the file, or correct the cell"),
        ("images", "is a folder, expected an image file: write a line for each image"),
    ],
)
def test_a_missing_file_has_a_remedy_that_works(
    tmp_path: Path, pictures: list[tuple[str, str]], cell: str, remedy: str
) -> None:
    (tmp_path / "more" / "photos").mkdir(parents=True)
    shutil.copy(tmp_path / "images" / "00.png", tmp_path / "more" / "photos" / "deep.png")
    path = written(tmp_path, "path,label", [f"{cell},cat", f"{cell},dog"])
    with pytest.raises(UserError, match=re.escape(remedy)):
        table(path)


def test_names_that_only_look_different_are_said(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [
        f"images/{name},{(label.title() if number < 8 else label)}"
        for number, (name, label) in enumerate(pictures)
    ]
    said = table(written(tmp_path, "path,label", lines), test_fraction=0.2).describe()
    assert "the classes Cat and cat differ only in spelling" in said
    written_twice = ("cafe\u0301", "caf\u00e9")
    lines = [f"images/{name},{written_twice[n // 2 % 2]}" for n, (name, _) in enumerate(pictures)]
    lines[1::2] = [f"images/{name},{label}" for name, label in pictures[1::2]]
    path = written(tmp_path, "path,label", lines)
    assert table(path, test_fraction=0.2).spec.class_names == (written_twice[1], "dog")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"path,label\n", mtime=0), "is compressed by gzip, expected a table of text (CSV): type gunzip -k"),
        (b"PK\x03\x04xl/workbook", "is an Excel workbook or another zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel workbook"),
        (b"PAR1\x00", "is a parquet file, expected a table of text (CSV): type data=huggingface data.name="),
        (b'[{"path": "a"}]', "is JSON"),
        (b"\n<!DOCTYPE html>", "is HTML or XML, perhaps a page that was saved in place of the file"),
        ("path,label\na,b\n".encode("utf-32"), "contains zero bytes, expected text in UTF-8"),
        ("path,label\na,b\n".encode("utf-16-le"), "contains zero bytes, expected text in UTF-8"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        table(path)


def test_a_test_table_chooses_nothing(tmp_path: Path, pictures: list[tuple[str, str]]) -> None:
    lines = [f"images/{name},{label}" for name, label in pictures]
    parts = {
        "train": written(tmp_path, "path,label", lines[:12], "train.csv"),
        "val": written(tmp_path, "path,label", lines[12:16], "val.csv"),
        "test": written(tmp_path, "path,label", lines[16:], "test.csv"),
    }
    test = str(parts["test"])
    both = written(tmp_path, "path,label", lines[:16], "both.csv")
    are_right(data := table(both, test=test, test_fraction=0.25))
    assert {name: len(split.rows) for name, split in data.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    assert data.splits["test"].part == "test"
    are_right(data := table(parts["train"], val=str(parts["val"]), test=test))
    assert {name: len(split.rows) for name, split in data.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    with pytest.raises(UserError, match=r"data\.split and data\.test both give the splits"):
        table(parts["train"], split="label", test=test)


def test_a_held_out_table_without_a_column_says_what_to_do(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    train = written(tmp_path, "path,label", [f"images/{n},{label}" for n, label in pictures[:12]])
    names = [f"images/{name}" for name, _ in pictures[12:]]
    unlabelled = written(tmp_path, "path", names, "test.csv")
    with pytest.raises(
        UserError, match=r"only the column 'path', .* remove the table from data\.test"
    ):
        table(train, test=str(unlabelled))
    unlabelled = written(tmp_path, "path,size", [f"{name},4" for name in names], "test.csv")
    remedy = "rename its column, or remove data.test if its images have no labels$"
    with pytest.raises(UserError, match=rf"test\.csv has no column 'label', .*: {remedy}"):
        table(train, test=str(unlabelled))
    other = written(tmp_path, "file,label", [f"{name},cat" for name in names], "test.csv")
    with pytest.raises(UserError, match=r"test\.csv has no column 'path', .*: rename its column$"):
        table(train, test=str(other))


def test_a_column_of_splits_that_is_not_used_is_said(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [f"images/{n},{x},{('Train', 'dev')[i % 3 == 0]}" for i, (n, x) in enumerate(pictures)]
    data = table(written(tmp_path, "path,label,phase", lines), test_fraction=0.2)
    assert "the column phase is not used (data.split=phase takes its splits)" in data.describe()


@pytest.mark.parametrize(
    "header", ["path,0,1", "image,1,2", "img_path,001,250", "photo,0,1", "Label,3,7"]
)
def test_a_header_may_have_numbers(
    tmp_path: Path, pictures: list[tuple[str, str]], header: str
) -> None:
    names = header.split(",")
    lines = [f"images/{name},{int(x == 'cat')},{int(x == 'dog')}" for name, x in pictures]
    path = written(tmp_path, header, lines)
    are_right(table(path, path=names[0], label=names[1:], test_fraction=0.2), tuple(names[1:]))


def test_pixels_numbered_by_their_header(tmp_path: Path) -> None:
    lines = [f"{i % 2},{i},2,3,4" for i in range(20)]
    data = table(written(tmp_path, "label,0,1,2,3", lines), test_fraction=0.2)
    assert data.part("train").images[7].reshape(-1).tolist() == [7, 2, 3, 4]
    assert "no header" not in data.describe()


@pytest.mark.parametrize("style", ["{}", '"{}"', "[{}]"])
def test_pixels_in_one_cell(tmp_path: Path, style: str) -> None:
    usage = ("Training", "Training", "PublicTest", "PrivateTest")
    lines = [f"{i % 2},{style.format(f'{i} 2 3 255')},{usage[i // 2 % 4]}" for i in range(20)]
    path = written(tmp_path, "emotion,pixels,Usage", lines)
    data = table(path, split="Usage")
    assert {name: len(split.rows) for name, split in data.splits.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    assert data.part("val").images[0].reshape(-1).tolist() == [4, 2, 3, 255]
    lines[4] = "0,1 2 3 4 5,Training"
    with pytest.raises(UserError, match=r"line 6: the column pixels lists 5 pixels, expected 4"):
        table(written(tmp_path, "emotion,pixels,Usage", lines), split="Usage")


def test_cells_may_be_quoted_after_a_blank(tmp_path: Path, pictures: list[tuple[str, str]]) -> None:
    lines = [f'images/{name}, "{label}, big"' for name, label in pictures]
    data = table(written(tmp_path, "path, label", lines), test_fraction=0.2)
    are_right(data, ("cat, big", "dog, big"))


def test_an_ending_that_the_cells_have_already(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    lines = [f"{name.replace('.png', '.PNG')},{label}" for name, label in pictures]
    path = written(tmp_path, "path,label", lines)
    are_right(table(path, folder="images", suffix=".png", test_fraction=0.2))
    with pytest.raises(UserError, match=r"type data\.folder=images data\.suffix=null"):
        table(written(tmp_path, "path,label", ["00.png,cat"]), folder="images", suffix=".jpg")
    with pytest.raises(UserError, match=r"there is no folder .*pictures; type data\.folder="):
        table(path, folder="pictures")


@pytest.mark.parametrize("label", ["N/A", "<NA>", "NaT", "#N/A", "nan"])
def test_a_missing_label_among_words_is_refused(tmp_path: Path, label: str) -> None:
    path = written(tmp_path, "label,p1,p2,p3,p4", pixel_lines(["cat", "dog", label] * 5))
    with pytest.raises(UserError, match=r"line 4: .* stands for a missing value"):
        table(path)


@pytest.mark.parametrize("label", ["None", "null", "NA", "?"])
def test_a_label_that_may_be_missing_is_said(tmp_path: Path, label: str) -> None:
    path = written(tmp_path, "label,p1,p2,p3,p4", pixel_lines(["cat", "dog", label] * 5))
    said = table(path, test_fraction=0.2).describe()
    assert f"the class {label} may stand for missing labels" in said


def test_one_column_a_class_beside_others(tmp_path: Path, pictures: list[tuple[str, str]]) -> None:
    lines = [
        f"images/{n},{i},{int(x == 'cat')},{int(x == 'dog')}" for i, (n, x) in enumerate(pictures)
    ]
    path = written(tmp_path, "path,age,cat,dog", lines)
    with pytest.raises(UserError, match=r"type data\.label=\[cat,dog\], one column for each class"):
        table(path)


def pixel_lines(labels: list[str]) -> list[str]:
    return [f"{label},1,2,3,4" for label in labels]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ("-1", "is negative"),
        ("nan", "stands for a missing value"),
        ("NaN", "stands for a missing value"),
        ("None", "stands for a missing value"),
        ("1e38", "is too large"),
        ("inf", "stands for a missing value"),
        ("cat", "is not a number"),
        ("1_0", "is not a number"),
        ("٣", "is not a number"),
        ("50", "is far from the others"),
        ("1.0", "is the same number as '1'"),
        ("01", "is the same number as '1'"),
        ("0.5", "is not a whole number"),
        ("0|1", "names several classes"),
        ("0 1", "names several classes"),
        ("\"['0', '1']\"", "names several classes"),
        ("['0']", "is a list, where one class is expected"),
        ("9" * 100_000, "… (100,000 characters) is too large"),
        ('"0', "a cell begins with a quote"),
        ('"0\n1"', "has a line break"),
    ],
)
def test_a_label_out_of_place_is_named_by_its_line(tmp_path: Path, odd: str, message: str) -> None:
    labels = [str(number % 3) for number in range(60)]
    labels[17] = odd
    path = written(tmp_path, "label,p1,p2,p3,p4", pixel_lines(labels))
    with pytest.raises(UserError) as error:
        table(path)
    assert str(error.value).startswith(f"{path}, line 19")
    assert message in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("cell", "is_read"),
    [("7", True), (" 7", True), ("7.0", True), ("007", True), ("7.5", False), ("1_0", False),
     ("٣", False), ("9" * 100_000, False), ("9" * 1_000_000, False), ("", False), ("-1", False)],
)  # fmt: skip
def test_a_pixel_is_a_number_from_0_to_255(tmp_path: Path, cell: str, is_read: bool) -> None:
    lines = pixel_lines([str(number % 2) for number in range(20)])
    lines[9] = f"1,1,{cell},3,4"
    path = written(tmp_path, "label,p1,p2,p3,p4", lines)
    if is_read:
        images = table(path, test_fraction=0.2).part("train").images
        assert images[9].reshape(-1).tolist() == [1, 10 if cell == "1_0" else 7, 3, 4]
        return
    with pytest.raises(UserError, match=r"line 11: p2 is ") as error:
        table(path)
    assert len(str(error.value)) < 400


def test_pixels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = sorted((f"pixel{n}" for n in range(16)), key=str)  # pixel0, pixel1, pixel10, …
    values = [name.removeprefix("pixel") for name in names]
    lines = [",".join([label, *values]) for label in "abab"]
    data = table(written(tmp_path, ",".join(["label", *names]), lines), test_fraction=0.5)
    assert data.contents.parts["train"].images[0].ravel().tolist() == list(range(16))
    assert "pixels in the order of their numbers, from pixel0 to pixel15" in data.describe()


def test_row_numbers_and_other_columns_are_no_pixels(tmp_path: Path) -> None:
    rows = [f"{i},{i % 2},1,2,3,4,u" for i in range(20)]
    for name in ("", "Unnamed: 0", "id"):
        path = written(tmp_path, f"{name},label,p1,p2,p3,p4,usage", rows)
        data = table(path, test_fraction=0.2)
        assert (data.spec.height, data.spec.width) == (2, 2)
        assert "usage" in data.describe()
        assert "skipped" in data.describe()


@pytest.mark.parametrize(
    ("content", "typed"),
    [
        ("photo,label\n1,cat\n2,dog\n", "data.path=photo"),
        ("label,photo\ncat,1\ndog,2\n", "data.path=photo"),
        ("id_code,diagnosis\n0000000186a0,0\n000c1434d8d7,1\n", "data.path=id_code"),
        ("photo,label\n1001,cat\n1002,dog\n", "data.path=photo"),
        ("id,age,sex,site,label\n1,40,0,3,cat\n2,50,1,4,dog\n", "data.path=id"),
        ("id,age,label\n1,40,cat\n2,50,dog\n", "data.path=id"),
        (
            "id,"
            + ",".join("abcdefghijklmno")
            + ",label\n"
            + "1," * 16
            + "cat\n"
            + "2," * 16
            + "dog\n",
            "data.path=id",
        ),
    ],
)
def test_ids_and_ages_are_no_pixels(tmp_path: Path, content: str, typed: str) -> None:
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(UserError, match=rf"names image files: type {typed}, with .*data\.shape="):
        table(tmp_path / "table.csv", test_fraction=0.5)


def test_a_few_pixels_are_read_if_their_names_or_the_shape_say_so(tmp_path: Path) -> None:
    lines = pixel_lines(["cat", "dog"] * 4)
    for names, options in (("p1,p2,p3,p4", {}), ("a,b,c,d", {"shape": [1, 2, 2]})):
        data = table(written(tmp_path, f"label,{names}", lines), test_fraction=0.5, **options)
        assert (data.spec.height, data.spec.width) == (2, 2)


def test_num_classes_keeps_gaps_in_tables_of_pixels(tmp_path: Path) -> None:
    path = written(tmp_path, "label,p1", [f"{(0, 3)[i % 2]},1" for i in range(20)])
    assert table(path, test_fraction=0.2).spec.class_names == ("0", "3")
    assert table(path, test_fraction=0.2, num_classes=5).spec.num_classes == 5
    with pytest.raises(UserError, match=r"line 3: the label '3' is not one of the 2 classes"):
        table(path, num_classes=2)


def test_another_table_may_spell_a_file_in_another_way(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    """A link, an absolute path and a Windows path lead to the same image."""
    lines = [f"images/{name},{label}" for name, label in pictures]
    train = written(tmp_path, "path,label", lines)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    for folder in (f"{tmp_path}/images/", "images\\", "link/"):
        same = [f"{folder}{name},{label}" for name, label in pictures[:3]]
        val = tmp_path / "val.csv"
        val.write_text("\n".join(["path,label", *same]))
        assert "3 images of val also in train" in table(train, val=str(val)).describe()
        other = next(b for _, b in pictures if b != pictures[0][1])
        val.write_text(f"path,label\n{folder}{pictures[0][0]},{other}\n")
        with pytest.raises(UserError, match=r"val\.csv, line 2: .* differs from .*, line 2"):
            table(train, val=str(val))


def test_a_stray_quote_that_swallows_rows(tmp_path: Path, pictures: list[tuple[str, str]]) -> None:
    lines = [f"images/{name},{label},seen" for name, label in pictures]
    lines[2] = lines[2].replace("seen", '"6 inch')
    lines[4] = lines[4].replace("seen", 'big 7"')
    with pytest.raises(UserError, match=r"line 4: .* contains further rows.* stray quote"):
        table(written(tmp_path, "path,label,notes", lines))
    prose = [*lines[:2], f'images/{pictures[2][0]},{pictures[2][1]},"big, old\nred, dry, sold"']
    table(written(tmp_path, "path,label,notes", [*prose, *lines[5:]]))


def test_a_table_without_header_is_not_made_one_by_a_key(
    tmp_path: Path, pictures: list[tuple[str, str]]
) -> None:
    for name, _ in pictures:
        (tmp_path / "images" / name).rename(tmp_path / "images" / f"photo{name}")
    first, *rest = [f"photo{Path(name).stem},{label}" for name, label in pictures]
    path, label = first.split(",")
    with pytest.raises(UserError, match=r"line 1: .* names an image"):
        table(
            written(tmp_path, first, rest), path=path, label=label, folder="images", suffix=".png"
        )


@pytest.mark.parametrize(
    ("column", "values", "remark"),
    [
        ("split", ["train"] * 15 + ["test"] * 5, "(data.split=split takes its splits)"),
        ("split", ["train"] * 15 + ["test"] * 4 + ["bad"], "it also contains 'bad'"),
        ("is_valid", ["False"] * 15 + ["True"] * 5, "(data.split=is_valid takes its splits)"),
        ("fold", [str(n % 4) for n in range(20)], "the column fold is not used"),
        ("age", [str(n % 4) for n in range(20)], ""),
    ],
)
def test_a_column_that_divides_the_images_is_mentioned(
    tmp_path: Path,
    pictures: list[tuple[str, str]],
    column: str,
    values: list[str],
    remark: str,
) -> None:
    rows = zip(pictures, values, strict=True)
    lines = [f"images/{name},{label},{value}" for (name, label), value in rows]
    described = table(written(tmp_path, f"path,label,{column}", lines)).describe()
    assert remark in described
    assert ("not used" in described) == bool(remark)


def test_pixels_are_put_in_order_by_their_names(tmp_path: Path) -> None:
    """Kaggle's MNIST has columns 1x1 to 28x28; others write one plane after another."""
    in_rows = [f"{row}x{column}" for row in range(1, 13) for column in range(1, 13)]
    value = {name: number for number, name in enumerate(in_rows)}
    header = ",".join(["label", *sorted(in_rows)])
    lines = [",".join(map(str, (n % 2, *(value[c] for c in sorted(in_rows))))) for n in range(20)]
    data = table(written(tmp_path, header, lines))
    assert data.stored_images("train", np.array([0]))[0, :, :, 0].ravel().tolist() == [*range(144)]
    planes = [f"{colour}{number}" for colour in "RGB" for number in range(16)]
    lines = [",".join(map(str, (n % 2, *range(48)))) for n in range(20)]
    data = table(written(tmp_path, ",".join(["label", *planes]), lines), shape=[3, 4, 4])
    assert data.stored_images("train", np.array([0]))[0, 0, 1].tolist() == [1, 17, 33]
    odd = [f"pixel{number}" for number in range(16)]
    lines = [",".join(map(str, (n % 2, 99, *range(16)))) for n in range(20)]
    data = table(written(tmp_path, ",".join(["label", "age2", *odd]), lines))
    assert "skipped, because they are not named like the pixels: age2" in data.describe()


def test_the_columns_of_a_wide_table_are_looked_up_without_searching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of the header for each column would take minutes at every start."""
    names = [f"pixel{number}" for number in range(400)]
    lines = [",".join(map(str, (n % 2, *range(200), *range(200)))) for n in range(8)]
    wide = Table(written(tmp_path, ",".join(["label", *names]), lines))
    compared = 0

    class Name(str):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    monkeypatch.setattr(wide, "header", list(map(Name, wide.header)))
    found = find_columns(
        wide, path=None, label=None, split=None, groups=None, has_shape=False, is_file=lambda _: False
    )  # fmt: skip
    assert found.pixels == tuple(names)
    assert compared < 50 * len(names)
