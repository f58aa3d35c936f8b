"""Datasets in Hugging Face's formats, made here and read without a network."""

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from glimpse import progress_bar
from glimpse.data.decode import PixelFormat, decode
from glimpse.data.image_cells import opened_image
from glimpse.data.sets.huggingface import HuggingFace
from glimpse.errors import UserError
from glimpse.insight.predictions import names_of

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


def opened(name: Path | str, tmp_path: Path, **options: Any) -> HuggingFace:
    common: dict[str, Any] = {"seed": 0, "batch_size": 4, "val_fraction": 0.0, "num_workers": 1}
    data = HuggingFace(name=str(name), data_dir=str(tmp_path / "data"), **(common | options))
    data.prepare_data()
    data.setup()
    return data


def png(shade: int, size: tuple[int, int] = (6, 4)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


def rows(num: int, names: tuple[str, str] | None = ("cat", "dog")) -> Any:
    """Dark cats and bright dogs in turn, with the column types of the hub, or labels as text."""
    cells = [{"bytes": png(60 + 120 * (i % 2)), "path": None} for i in range(num)]
    columns: dict[str, Any] = {"image": cells, "label": [i % 2 for i in range(num)]}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names or "ab"))}
    )
    return datasets.Dataset.from_dict(columns, features=features)


def are_right(data: HuggingFace, sizes: dict[str, int], classes: tuple[str, ...]) -> None:
    assert data.spec.class_names == classes
    assert (data.spec.channels, data.spec.height, data.spec.width) == (3, 4, 6)
    assert {name: len(split.rows) for name, split in data.splits.items()} == sizes
    for split in data.splits:
        for batch in data.batches.loader(split):
            bright = (batch.images.float().mean((1, 2, 3)) > 120).long()
            assert bright.tolist() == batch.labels.tolist()


def test_a_saved_folder_with_its_splits(tmp_path: Path) -> None:
    splits = {"train": rows(12), "validation": rows(4), "test": rows(6)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    sizes = {"train": 12, "val": 4, "test": 6}
    are_right(opened(tmp_path / "saved", tmp_path), sizes, ("cat", "dog"))
    are_right(opened(tmp_path / "saved", tmp_path), sizes, ("cat", "dog"))  # from the cache


def test_parquet_files_of_the_hub_and_of_others(tmp_path: Path) -> None:
    rows(20).to_parquet(str(tmp_path / "one.parquet"))
    are_right(opened(tmp_path / "one.parquet", tmp_path), {"train": 16, "val": 4}, ("cat", "dog"))
    table = {"image": [png(60 + 120 * (i % 2)) for i in range(20)], "kind": ["ant", "bee"] * 10}
    plain = datasets.Dataset.from_dict(table)
    plain.to_parquet(str(tmp_path / "plain.parquet"))
    with pytest.raises(UserError, match=r"columns are image, kind: type data\.label=<column>"):
        opened(tmp_path / "plain.parquet", tmp_path)
    data = opened(tmp_path / "plain.parquet", tmp_path, label="kind")
    are_right(data, {"train": 16, "val": 4}, ("ant", "bee"))
    named = plain.rename_column("kind", "species")
    named.to_parquet(str(tmp_path / "named.parquet"))
    are_right(opened(tmp_path / "named.parquet", tmp_path), {"train": 16, "val": 4}, ("ant", "bee"))


@pytest.mark.parametrize("form", ["H×W×3", "3×H×W", "H×W", "flat"])
def test_images_as_lists_of_pixels(tmp_path: Path, form: str) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    pixels[1, :4] = 200  # the upper half of the second image
    columns: Any = {
        "H×W×3": pixels, "3×H×W": pixels.transpose(0, 3, 1, 2), "H×W": pixels[..., 0],
        "flat": pixels[..., 0].reshape(2, 64),
    }[form].tolist()  # fmt: skip
    table = datasets.Dataset.from_dict({"image": columns * 10, "label": [0, 1] * 10})
    table.to_parquet(str(tmp_path / "lists.parquet"))
    data = opened(tmp_path / "lists.parquet", tmp_path)
    assert data.spec.channels == (3 if "3" in form else 1)
    for batch in data.batches.loader("val"):
        upper, lower = batch.images[:, :4].float(), batch.images[:, 4:].float()
        assert (upper.mean((1, 2, 3)) == 200 * batch.labels).all()
        assert not lower.any()


@pytest.mark.parametrize("label", [-1, None, "absent"])
def test_a_test_set_without_labels_is_left_out_and_that_is_said(
    tmp_path: Path, label: int | str | None
) -> None:
    unlabelled = rows(6).map(lambda row: {"label": None if label == "absent" else label})
    if label == "absent":
        unlabelled = unlabelled.remove_columns("label")
    datasets.DatasetDict({"train": rows(20), "test": unlabelled}).save_to_disk(
        str(tmp_path / "saved")
    )
    for _ in range(2):  # read, then from the cache
        data = opened(tmp_path / "saved", tmp_path)
        are_right(data, {"train": 16, "val": 4}, ("cat", "dog"))
        assert "its test images have no labels, so they are not used" in data.describe()


def test_labels_that_a_part_of_the_held_out_images_lacks_are_refused(tmp_path: Path) -> None:
    first = iter([None, *[1] * 5])
    partly = rows(6).map(lambda row: {"label": next(first)})
    none = rows(6).map(lambda row: {"label": None})
    for split, held_out in (("test", partly), ("validation", none)):
        folder = tmp_path / split
        datasets.DatasetDict({"train": rows(20), split: held_out}).save_to_disk(str(folder))
        with pytest.raises(UserError, match=r"(test|val)\[0\]: the label is missing"):
            opened(folder, tmp_path)


def test_pixels_are_those_of_files_however_large(tmp_path: Path) -> None:
    shades = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    Image.fromarray(shades).save(tmp_path / "large.jpg")
    content = (tmp_path / "large.jpg").read_bytes()
    columns = {"image": [content] * 8, "label": [0, 1] * 4}
    datasets.Dataset.from_dict(columns).to_parquet(str(tmp_path / "large.parquet"))
    data = opened(tmp_path / "large.parquet", tmp_path, presize=16, test_fraction=0.5)
    expected = decode(tmp_path / "large.jpg", PixelFormat(16, 16, 3, "crop"))
    assert (data.part("train").images == expected).all()


def test_groups_and_names_of_images_do_not_decode_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = rows(20).add_column("patient", [f"p{i // 2}" for i in range(20)])
    table.to_parquet(str(tmp_path / "photos.parquet"))
    options = {"groups": "patient", "test_fraction": 0.4}
    opened(tmp_path / "photos.parquet", tmp_path, **options)
    monkeypatch.setattr(HuggingFace, "read", None)
    data = opened(tmp_path / "photos.parquet", tmp_path, **options)  # from the cache
    assert names_of(data, "val")[0].startswith("train[")


def test_other_splits_are_said_and_used_if_they_are_named(tmp_path: Path) -> None:
    splits = {"train": rows(12), "test": rows(4), "extra": rows(6), "test2": rows(8)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    right = (
        "not used: splits extra, test2 (data.train=train+extra would train on extra too, "
        "data.test=extra test on it)"
    )
    for _ in range(2):  # read, then from the cache
        data = opened(tmp_path / "saved", tmp_path)
        are_right(data, {"train": 9, "val": 3, "test": 4}, ("cat", "dog"))
        assert right in data.describe()
    data = opened(tmp_path / "saved", tmp_path, train=["train", "extra"], val="test", test="test2")
    are_right(data, {"train": 18, "val": 4, "test": 8}, ("cat", "dog"))
    assert "not used" not in data.describe()
    data = opened(tmp_path / "saved", tmp_path, train="train+test")
    are_right(data, {"train": 12, "val": 4}, ("cat", "dog"))
    assert "not used: splits extra, test2" in data.describe()


def test_splits_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    others = rows(4, ("bee", "ant"))
    datasets.DatasetDict({"train": rows(4), "extra": others}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(
        UserError, match=r"data\.test=tests: expected one of the splits, train, extra"
    ):
        opened(tmp_path / "saved", tmp_path, test="tests")
    with pytest.raises(UserError, match="name the same split"):
        opened(tmp_path / "saved", tmp_path, train="train+extra", test="extra")
    with pytest.raises(UserError, match=r"data\.train=train\+extra: the columns of these splits"):
        opened(tmp_path / "saved", tmp_path, train="train+extra")
    datasets.DatasetDict({"a": rows(4), "b": rows(4)}).save_to_disk(str(tmp_path / "unnamed"))
    with pytest.raises(UserError, match=r"found a, b: type data\.train=<one of them>"):
        opened(tmp_path / "unnamed", tmp_path)


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    rows(12).to_parquet(str(folder / "train-00000-of-00001.parquet"))
    rows(4).to_parquet(str(folder / "test-00000-of-00001.parquet"))
    data = opened(tmp_path / "set", tmp_path, test_fraction=0.5)
    are_right(data, {"train": 6, "val": 6, "test": 4}, ("cat", "dog"))


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = datasets.Dataset.from_dict({"image": [png(9)] * 4, "label": [[0, 1]] * 4})
    several.to_parquet(str(tmp_path / "several.parquet"))
    with pytest.raises(UserError, match=r"train\[0\]: the label is '\[0, 1\]', expected one class"):
        opened(tmp_path / "several.parquet", tmp_path)
    paths = datasets.Dataset.from_dict({"image": ["a.png"] * 4, "label": [0, 1] * 2})
    paths.to_parquet(str(tmp_path / "paths.parquet"))
    with pytest.raises(
        UserError, match=r"contains 'a\.png', expected an image \(for paths of files"
    ):
        opened(tmp_path / "paths.parquet", tmp_path)
    (tmp_path / "list.jsonl").write_text('{"label": 0}\n')
    with pytest.raises(UserError, match="save it as a parquet file, or as a table of CSV"):
        opened(tmp_path / "list.jsonl", tmp_path)
    rows(4).select([]).save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"state\.json lists no files, so there are no images"):
        opened(tmp_path / "empty", tmp_path)
    broken = datasets.Dataset.from_dict({"image": [png(9), b"<html>"] * 4, "label": [0, 1] * 4})
    broken.to_parquet(str(tmp_path / "broken.parquet"))
    with pytest.raises(UserError, match=r"train\[1\] is not an image that can be read"):
        opened(tmp_path / "broken.parquet", tmp_path)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(UserError, match=r"text\.parquet cannot be read: "):
        opened(tmp_path / "text.parquet", tmp_path)
    with pytest.raises(UserError, match=r"none\.parquet: there is no such file or folder"):
        opened(tmp_path / "none.parquet", tmp_path)


def test_deep_images_share_one_white_and_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deep(brightest: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.array([[0, 4080], [8160, brightest]], np.uint16)).save(file, "PNG")
        return file.getvalue()

    cells = [deep(4095 if i % 2 else 65535) for i in range(20)]
    columns = {"image": cells, "label": [i % 2 for i in range(20)]}
    datasets.Dataset.from_dict(columns).to_parquet(str(tmp_path / "deep.parquet"))
    decoded = []
    load = PngImagePlugin.PngImageFile.load

    def counting(image: Any) -> Any:
        decoded.extend([image] if image.tile else [])
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", counting)
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0)
    data = opened(tmp_path / "deep.parquet", tmp_path)
    assert "looking for colour: 19 of 20 images" in capsys.readouterr().err
    images = np.concatenate([data.part(split).images for split in ("train",)])
    assert (images[:, 0, 1, 0] == 4080 // 256).all()
    assert len(decoded) < 2.1 * 20  # all, and a sample, which is every one of so few


def test_a_missing_configuration_is_answered_with_those_there_are(tmp_path: Path) -> None:
    for name in ("day", "night"):
        (tmp_path / "set" / name).mkdir(parents=True)
        rows(12).to_parquet(str(tmp_path / "set" / name / "train.parquet"))
    configs = "".join(f"- config_name: {name}\n  data_dir: {name}\n" for name in ("day", "night"))
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    said = r"Config name is missing\. .*\['day', 'night'\]: type data\.subset=<one of them>$"
    with pytest.raises(UserError, match=said):
        opened(tmp_path / "set", tmp_path)
    data = opened(tmp_path / "set", tmp_path, subset="night")
    are_right(data, {"train": 9, "val": 3}, ("cat", "dog"))


@pytest.mark.parametrize("missing", [None, " "])
def test_a_row_without_a_group_is_refused(tmp_path: Path, missing: str | None) -> None:
    patients = [f"p{i // 2}" for i in range(12)]
    table = rows(12).add_column("patient", [*patients[:5], missing, *patients[6:]])
    table.to_parquet(str(tmp_path / "saved.parquet"))
    with pytest.raises(UserError, match=r"column is empty in 1 of 12 rows, first in row 6"):
        opened(tmp_path / "saved.parquet", tmp_path, groups="patient")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset_dict.json", '{"splits": 3}'),
        ("dataset_dict.json", "{"),
        ("train/state.json", '{"_data_files": 5}'),
        ("train/state.json", None),
        ("train/dataset_info.json", '{"features": {"image": {"_type": "Nothing"}}}'),
        ("test/data-00000-of-00001.arrow", 900),
        ("test/data-00000-of-00001.arrow", None),
    ],
)
def test_the_broken_file_of_a_saved_folder_is_named(
    tmp_path: Path, name: str, content: str | int | None
) -> None:
    folder = tmp_path / "saved"
    datasets.DatasetDict({"train": rows(4), "test": rows(4)}).save_to_disk(str(folder))
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, int):
        os.truncate(folder / name, content)
    else:
        (folder / name).write_text(content)
    named = re.escape(str(folder / name))
    with pytest.raises(UserError, match=f"^{named}.*: copy the folder again, or save it") as error:
        opened(folder, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", [("1", "2", "3"), ("2", "0", "1")])
def test_a_number_is_a_position_even_where_names_are_numbers(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    cells = [{"bytes": png(50 * (i % 3)), "path": None} for i in range(9)]
    columns: dict[str, Any] = {"image": cells, "label": [i % 3 for i in range(9)]}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
    )
    whole = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(str(tmp_path / "saved"))
    data = opened(tmp_path / "saved", tmp_path, test_fraction=0.4)
    assert data.spec.class_names == names
    part = data.contents.parts["train"]
    assert part.labels.tolist() == [i % 3 for i in range(9)]


def test_a_number_that_is_no_class_of_training_is_refused(tmp_path: Path) -> None:
    train = rows(8).cast_column("label", datasets.Value("int64"))
    shifted = train.map(lambda row: {"label": row["label"] + 1}, load_from_cache_file=False)
    splits = {"train": shifted, "validation": train}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(
        UserError, match=r"validation|val\[0\]: the label '0' is not one of the classes"
    ):
        opened(tmp_path / "saved", tmp_path)


def test_many_images_are_decoded_in_several_processes(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict(
        {"image": [png(i % 251) for i in range(1200)], "label": [i % 2 for i in range(1200)]}
    )
    table.to_parquet(str(tmp_path / "many.parquet"))
    data = opened(tmp_path / "many.parquet", tmp_path, num_workers=2, val_fraction=0.1)
    part = data.contents.parts["train"]
    assert part.images[:, 0, 0, 0].tolist() == [i % 251 for i in range(1200)]


def test_images_that_cannot_be_read_are_skipped_where_asked(tmp_path: Path) -> None:
    cells = [{"bytes": png(60 + 120 * (i % 2)), "path": None} for i in range(12)]
    cells[3] = {"bytes": b"<!DOCTYPE html>", "path": None}
    cells[6] = {"bytes": None, "path": str(tmp_path / "gone.png")}
    table = pyarrow.table(
        {"image": cells, "label": ["a", "b"] * 6, "patient": [f"p{i // 2}" for i in range(12)]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "saved.parquet")
    options = {"test_fraction": 0.4, "groups": "patient"}
    with pytest.raises(UserError, match=r"train\[3\].*; or type data.on_bad_file=skip"):
        opened(tmp_path / "saved.parquet", tmp_path, **options)
    data = opened(tmp_path / "saved.parquet", tmp_path, on_bad_file="skip", **options)
    assert "2 unreadable files skipped" in data.describe()
    assert data.column("patient", "train") == [
        "p0",
        "p0",
        "p1",
        "p2",
        "p2",
        "p3",
        *["p4"] * 2,
        *["p5"] * 2,
    ]
    assert data.contents.parts["train"].labels.tolist() == [0, 1, 0, 0, 1, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:9/x.parquet", "/etc/x.parquet", "../x.parquet"]
)
def test_the_card_of_a_local_dataset_names_no_file_elsewhere(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows(8).to_parquet(str(folder / "train.parquet"))
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {place}\n---\n"
    (folder / "README.md").write_text(card)
    with pytest.raises(UserError, match=r"README\.md names the file .*, expected files in its own"):
        opened(folder, tmp_path)


def test_a_cell_that_names_a_pipe_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cells = [{"bytes": None, "path": str(tmp_path / "pipe")}, {"bytes": None, "path": "a\0b"}]
    for cell in cells:
        with (
            pytest.raises(UserError, match=r"named pipe|null (byte|character)"),
            opened_image(cell, "image", "x"),
        ):
            pass
