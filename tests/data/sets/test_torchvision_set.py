"""torchvision's sets by name: their parts, names and labels, and what is said where they fail."""

import bz2
import csv
import gc
import inspect
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

from glimpse.data.sets.torchvision_set import SETS, TorchvisionSet
from glimpse.errors import UserError
from makers import make_eurosat, make_mnist, make_svhn, save_image, shades, write_idx


def opened(data_dir: Path, name: str, **options: Any) -> TorchvisionSet:
    common: dict[str, Any] = {"seed": 0, "batch_size": 64, "val_fraction": 0.0, "num_workers": 1}
    data = TorchvisionSet(**{"name": name, "data_dir": str(data_dir)} | common | options)
    data.prepare_data()
    data.setup()
    return data


def sizes(data: TorchvisionSet) -> dict[str, int]:
    return {name: len(split.rows) for name, split in data.splits.items()}


def levels(data: TorchvisionSet, split: str) -> list[int]:
    """The label that each image's brightness was made for."""
    [batch] = data.batches.loader(split)
    brightness = batch.images.float().mean((1, 2, 3)).numpy()
    return np.rint((brightness - 40) / 175 * data.spec.num_classes).astype(int).tolist()


def photo(path: Path, label: int, num_classes: int, *, size: int = 24) -> None:
    save_image(shades([label], num_classes, size=size, channels=3, seed=label)[0], path)


# Sets in their own formats ----------------------------------------------------------------------


def make_flowers102(data_dir: Path) -> None:
    folder = data_dir / "flowers-102"
    labels = [40 * (number % 3) for number in range(18)]
    for number, label in enumerate(labels, 1):
        photo(folder / "jpg" / f"image_{number:05d}.jpg", label, 102)
    ids = np.arange(1, 19)
    savemat(folder / "imagelabels.mat", {"labels": np.array(labels) + 1})
    savemat(folder / "setid.mat", {"trnid": ids[9:], "valid": ids[:3], "tstid": ids[3:9]})


def make_dtd(data_dir: Path) -> None:
    folder = data_dir / "dtd" / "dtd"
    for part, numbers in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 9))):
        lines = []
        for label, name in enumerate(("banded", "dotted")):
            for number in numbers:
                photo(folder / "images" / name / f"{name}_{number}.jpg", label, 2)
                lines.append(f"{name}/{name}_{number}.jpg")
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{part}1.txt").write_text("\n".join(lines))


def make_food101(data_dir: Path) -> None:
    folder = data_dir / "food-101"
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        listed = {name: [f"{name}/{number}" for number in numbers] for name in ("pizza", "cake")}
        for label, name in enumerate(sorted(listed)):
            for path in listed[name]:
                photo(folder / "images" / f"{path}.jpg", label, 2)
        (folder / "meta").mkdir(exist_ok=True)
        (folder / "meta" / f"{part}.json").write_text(json.dumps(listed))


def make_gtsrb(data_dir: Path) -> None:
    folder = data_dir / "gtsrb"
    for label in range(2):
        for number in range(3):
            path = folder / "GTSRB" / "Training" / f"{label:05}" / f"{number}.ppm"
            photo(path, label, 2, size=20 + number)
    rows = [["Filename", "ClassId"]]
    for number in range(4):
        photo(folder / "GTSRB" / "Final_Test" / "Images" / f"{number}.ppm", number % 2, 2)
        rows.append([f"{number}.ppm", str(number % 2)])
    with (folder / "GT-final_test.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)


def make_imagenette(data_dir: Path) -> None:
    for label, wnid in enumerate(("n01440764", "n02102040")):  # tench, English springer
        for part, count in (("train", 4), ("val", 2)):
            for number in range(count):
                folder = data_dir / "imagenette2-160" / part / wnid
                photo(folder / f"{number}.jpeg", label, 2)


def make_emnist(data_dir: Path) -> None:
    raw = data_dir / "EMNIST" / "raw"
    for part, count in (("train", 4), ("test", 2)):
        labels = [1 + label for label in range(26)] * count
        images = shades(labels, 27, size=28, channels=1, seed=count)[..., 0]
        for what, array in (("images-idx3", images), ("labels-idx1", np.array(labels, np.uint8))):
            write_idx(array, raw / f"emnist-letters-{part}-{what}-ubyte", zipped=False)


def make_usps(data_dir: Path) -> None:
    data_dir.mkdir(exist_ok=True)
    for name, count in (("usps.bz2", 4), ("usps.t.bz2", 2)):
        labels = list(range(10)) * count
        images = shades(labels, 10, size=16, channels=1, seed=count).reshape(-1, 256) / 127.5 - 1
        lines = [
            f"{label + 1} " + " ".join(f"{i}:{v:.4f}" for i, v in enumerate(image, 1))
            for label, image in zip(labels, images, strict=True)
        ]
        (data_dir / name).write_bytes(bz2.compress("\n".join(lines).encode()))


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize(
    ("name", "make", "options", "expected", "some_names"),
    [
        (
            "Flowers102",
            make_flowers102,
            {},
            (9, 3, 6),
            ("pink primrose", "hard-leaved pocket orchid"),
        ),
        ("DTD", make_dtd, {}, (8, 4, 6), ("banded", "dotted")),
        ("Food101", make_food101, {}, (8, 4), ("cake", "pizza")),
        ("GTSRB", make_gtsrb, {"presize": 16}, (6, 4), ("0", "1")),
        (
            "Imagenette",
            make_imagenette,
            {"options": {"size": "160px"}},
            (8, 4),
            ("tench", "English springer"),
        ),
        ("EMNIST", make_emnist, {"options": {"split": "letters"}}, (104, 52), ("N/A", "a")),
        ("USPS", make_usps, {}, (40, 20), ("0", "1")),
        ("SVHN", lambda data_dir: make_svhn(data_dir), {}, (40, 20), ("0", "1")),
    ],
)
def test_parts_labels_and_names(
    tmp_path: Path,
    name: str,
    make: Callable[[Path], None],
    options: dict[str, Any],
    expected: tuple[int, ...],
    some_names: tuple[str, ...],
) -> None:
    make(tmp_path / "data")
    data = opened(tmp_path / "data", name, batch_size=1000, **options)
    assert sizes(data) == dict(zip(("train", "val", "test"), expected, strict=False))
    for split in data.splits:
        assert levels(data, split) == data.labels(split).tolist()
    assert set(some_names) <= set(data.spec.class_names)
    again = opened(tmp_path / "data", name, batch_size=1000, **options)
    assert again.fingerprint == data.fingerprint
    assert len(list((tmp_path / "data" / ".cache").glob("*/train.npy"))) == 1


def test_a_held_out_part_without_labels_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The challenge of FER2013 kept the labels of its test set."""
    monkeypatch.setattr(datasets.fer2013, "check_integrity", lambda path, md5: Path(path).is_file())
    labels = [number % 7 for number in range(70)]
    images = shades(labels, 7, size=48, channels=1, seed=0).reshape(70, -1)
    pixels = [" ".join(map(str, image)) for image in images.tolist()]
    (tmp_path / "fer2013").mkdir()
    lines = [f"{label},{cell}" for label, cell in zip(labels, pixels, strict=True)]
    (tmp_path / "fer2013" / "train.csv").write_text("\n".join(["emotion,pixels", *lines]))
    (tmp_path / "fer2013" / "test.csv").write_text("\n".join(["pixels", *pixels[:5]]))
    data = opened(tmp_path, "FER2013", batch_size=1000)
    assert sizes(data) == {"train": 56, "val": 14}
    assert levels(data, "val") == data.labels("val").tolist()
    assert "its test images have no labels, so they are not used" in data.describe()


def test_an_undivided_set_is_divided(tmp_path: Path) -> None:
    make_eurosat(tmp_path, per_class=10)
    data = opened(tmp_path, "EuroSAT", val_fraction=0.2)
    assert sizes(data) == {"train": 18, "val": 6, "test": 6}
    assert data.spec.class_names == ("Forest", "Highway", "River")


def test_files_are_decoded_as_any_others(tmp_path: Path) -> None:
    make_eurosat(tmp_path, per_class=10)
    cached, direct = opened(tmp_path, "EuroSAT"), opened(tmp_path, "EuroSAT", cache=False)
    [first], [second] = cached.batches.loader("val"), direct.batches.loader("val")
    assert (first.images == second.images).all()
    broken = tmp_path / "eurosat" / "2750" / "Forest" / "Forest_3.jpg"
    broken.write_text("<html>")
    with pytest.raises(UserError, match=str(broken)):
        opened(tmp_path, "EuroSAT")
    left = opened(tmp_path, "EuroSAT", on_bad_file="skip")
    assert sum(sizes(left).values()) == 29


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_images_of_many_sizes_that_torchvision_opens(tmp_path: Path) -> None:
    make_gtsrb(tmp_path)
    with pytest.raises(UserError, match=r"image 1 of GTSRB split=train is 21×21.*data\.presize=64"):
        opened(tmp_path, "GTSRB")
    path = tmp_path / "gtsrb" / "GTSRB" / "Training" / "00001" / "2.ppm"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="cannot read image 5 of GTSRB split=train") as error:
        opened(tmp_path, "GTSRB", presize=16, on_bad_file="skip")
    assert "data.on_bad_file does not apply to these images" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    del error
    gc.collect()  # torchvision leaves the broken file open


def test_every_set_has_the_parts_it_is_listed_with(tmp_path: Path) -> None:
    for name, (_, choices) in SETS.items():
        parameters = inspect.signature(getattr(datasets, name)).parameters
        takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        for choice in choices:
            assert set(choice) <= set(parameters) or takes_any, name
        options = {"split": "letters"} if name == "EMNIST" else {}
        if name == "PCAM":  # needs h5py
            continue
        data = TorchvisionSet(
            name=name, options=options, data_dir=str(tmp_path), seed=0, batch_size=1, val_fraction=0
        )
        for choice in choices:  # a part that torchvision does not know is another error
            with pytest.raises((RuntimeError, FileNotFoundError)):
                data._opened(tmp_path, choice)


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Flowers101"}, "no such dataset (did you mean Flowers102?); choose from CIFAR10"),
        ({"name": "svhn"}, "did you mean SVHN?"),
        ({"name": "zzzz"}, "no such dataset; choose from CIFAR10"),
        ({"name": "CocoDetection"}, "do not have exactly one class"),
        ({"name": "ImageNet"}, "type data=image_folder"),
        ({"name": "__file__"}, "no such dataset"),
        ({"name": "EMNIST"}, "needs data.options={split: …}, one of byclass"),
        ({"name": "DTD", "options": {"split": "val"}}, "no such option: it accepts partition"),
        ({"name": "SVHN", "options": {"root": "/"}}, "no such option: it accepts none"),
        ({"name": "SVHN", "url": "file:///a.zip"}, "put a copy, unpacked, at"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        opened(tmp_path, **options)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"partition": 11}, {"partition": "x"}])
def test_values_of_options_that_torchvision_refuses(tmp_path: Path, options: Any) -> None:
    make_dtd(tmp_path)
    with pytest.raises(UserError, match="cannot read DTD") as error:
        opened(tmp_path, "DTD", options=options)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_that_is_not_the_original(tmp_path: Path) -> None:
    make_svhn(tmp_path)
    with pytest.raises(
        UserError, match=r"corrupted.*train_32x32\.mat .* may be incomplete; move it elsewhere"
    ):
        opened(tmp_path, "SVHN")


def test_other_sizes_beside_the_wanted_one_are_not_taken_for_it(tmp_path: Path) -> None:
    make_imagenette(tmp_path)
    for size, folder in (("320px", "imagenette2-320"), ("full", "imagenette2")):
        data = TorchvisionSet(
            name="Imagenette", options={"size": size}, data_dir=str(tmp_path), seed=0, batch_size=4,
            val_fraction=0.0,
        )  # fmt: skip
        assert not list(data.source_files())
        assert data.missing().startswith(f"Imagenette is missing: put {tmp_path / folder} there")


def test_packed_files_that_another_dataset_reads_are_not_to_be_deleted(tmp_path: Path) -> None:
    make_mnist(tmp_path)
    with pytest.raises(UserError, match="type data=mnist, which also reads packed files") as error:
        opened(tmp_path, "MNIST")
    assert "delete" not in str(error.value)


# Downloads --------------------------------------------------------------------------------------


def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(datasets.eurosat, "download_and_extract_archive", no_network)
    with pytest.raises(
        UserError, match=r"cannot download EuroSAT .*name resolution.*put a copy"
    ) as e:
        opened(tmp_path, "EuroSAT")
    assert str(tmp_path / "eurosat") in str(e.value)
    with pytest.raises(UserError, match="kaggle"):
        opened(tmp_path, "FER2013")
    with pytest.raises(UserError, match="cannot be downloaded anymore"):
        opened(tmp_path, "StanfordCars")


def test_a_download_that_was_cut_off_is_repaired_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = True

    def download(_url: str, download_root: str, **_: object) -> None:
        make_eurosat(Path(download_root).parent, per_class=1 if cut else 10)
        if cut:
            raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(datasets.eurosat, "download_and_extract_archive", download)
    with pytest.raises(UserError, match="connection reset"):
        opened(tmp_path, "EuroSAT")
    assert not (tmp_path / "eurosat").exists()
    cut = False
    assert sum(sizes(opened(tmp_path, "EuroSAT")).values()) == 30


@pytest.mark.parametrize("kind", ["parent", "link", "harmless link", "pipe"])
def test_entries_of_a_tar_stay_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def download(_url: str, root: str, filename: str, _md5: str) -> None:
        Path(root).mkdir(parents=True)
        with tarfile.open(Path(root) / filename, "w:gz") as tarred:
            evil = tarfile.TarInfo("../../../evil.txt")
            if kind == "link":
                link = tarfile.TarInfo("dtd")
                link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
                tarred.addfile(link)
                evil = tarfile.TarInfo("dtd/evil.txt")
            elif kind == "harmless link":
                evil = tarfile.TarInfo("dtd/evil.txt")
                link = tarfile.TarInfo("dtd/other.txt")
                link.type, link.linkname = tarfile.SYMTYPE, "evil.txt"
                tarred.addfile(link)
            elif kind == "pipe":
                evil = tarfile.TarInfo("dtd/evil.txt")
                pipe = tarfile.TarInfo("dtd/pipe")
                pipe.type = tarfile.FIFOTYPE
                tarred.addfile(pipe)
            evil.size = 1
            tarred.addfile(evil, io.BytesIO(b"!"))

    monkeypatch.setattr(datasets.utils, "download_url", download)
    with pytest.raises(UserError, match="cannot download DTD") as error:
        opened(tmp_path / "some" / "data", "DTD")
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.rglob("evil.txt"))
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert vars(tarfile.TarFile)["extraction_filter"] is None  # as Python has it
