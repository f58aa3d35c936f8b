"""Tables of pixels or of files; every fault is named by file and line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glimpse.data.sets.csv_table import CsvTable
from glimpse.errors import UserError
from makers import make_sign_mnist, write_table


def table(path: Path, **options: Any) -> CsvTable:
    common = {"data_dir": str(path.parent), "seed": 0, "batch_size": 4, "val_fraction": 0.0}
    data = CsvTable(train=str(path), **(common | options))
    data.prepare_data()
    data.setup()
    return data


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
    test = str(folder / "sign_mnist_test.csv")
    data = table(folder / "sign_mnist_train.csv", test=test, class_names=letters)
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
        ("label,a,b,c,d\n0,1,2,3,4\n-1,1,2,3,4\n", "line 3: the label '-1' is not one of"),
        ("label,a,b,c,d\n0,1,2,3,4\n-100,1,2,3,4\n", "line 3: the label '-100' is not one of"),
        ("label,a,b,c,d\n0,1,2,3,4\n,1,2,3,4\n", "line 3: the column 'label' is empty"),
        (
            "label,a,b,c,d\n0,1,2,3,4\n10000000000,1,2,3,4\n",
            "line 3: the label 10000000000 is too large",
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
        table(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_label_beyond_the_names_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", [0, 1, 7], 8, seed=0)
    with pytest.raises(UserError, match="line 4: the label '7' is not one of the 3 classes"):
        table(tmp_path / "table.csv", class_names=["a", "b", "c"])


def test_the_mark_that_excel_writes_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_table(path, [0, 1] * 4, 2, seed=0)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert table(path, test_fraction=0.5).spec.num_classes == 2


def test_a_missing_table_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such table; download it from https://example\.org"):
        table(tmp_path / "none.csv", source="https://example.org")


def test_words_among_numbers_are_names_not_positions(tmp_path: Path) -> None:
    path = tmp_path / "cards.csv"
    path.write_text("label,a\n" + "2,1\n10,2\nJ,3\n" * 4 + "\n")  # and a blank line at the end
    data = table(path, test_fraction=0.25)
    assert data.spec.class_names == ("10", "2", "J")
    pixels = {0: 2, 1: 1, 2: 3}  # of the class, as written above
    for batch in data.batches.loader("train"):
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            assert image.item() == pixels[label]


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("label,a\nGänse,1\nEnten,2\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"table\.csv, after line \d: the text is not UTF-8"):
        table(path)
