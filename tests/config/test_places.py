"""A path that leads nowhere is named before torch is imported, with what to type."""

from pathlib import Path

import pytest

from glimpse.config.compose import composed
from glimpse.config.places import require_weights
from glimpse.errors import UserError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("data=image_folder data.root=photo", "no such folder: did you mean photos?"),
        ("data=image_folder data.root=nowhere", "type data.root=<your images>"),
        (
            "data=image_folder data.root=a.csv",
            "found a file; for a table, type data=csv data.train=",
        ),
        (
            "data=image_folder data.root=photos.zip",
            "found a file; unpack it, and type the unpacked folder",
        ),
        (
            "data=image_folder data.root=p.parquet",
            "found a file; type data=huggingface data.name=p.parquet",
        ),
        (
            "data=image_folder data.root=https://example.org/a.zip",
            "no such folder, but a web address: download it, and type the path",
        ),
        (r"data=image_folder data.root='C:\\my\\pets'", "in WSL, type data.root=/mnt/c/my/pets"),
        (
            r"data=image_folder data.root='my\\pets'",
            "type data.root=my/pets, with / between folders",
        ),
        (
            "data=csv data.train=b.csv",
            "data.train=b.csv: no such table: did you mean a.csv?",
        ),
        ("data=csv data.train=a.csv data.val=b.csv", "data.val=b.csv: no such table"),
        (
            "data=csv data.train=photos",
            "found a folder: type the name of a file; for a folder of images",
        ),
    ],
)
def test_a_path_that_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: str, message: str
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.csv", "photos.zip", "p.parquet"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        composed(overrides.replace("'", "").replace(r"\\", "\\").split())
    assert message in str(error.value)


def test_what_is_downloaded_need_not_be_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    composed(["data=image_folder", "data.root=soon/photos", "data.url=https://example.org/a.zip"])
    composed(["data=imagewoof"])
    composed(["data=sign_mnist"])


def test_weights_are_needed_only_by_a_run_that_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = composed(["model=mlp", "model.weights=nowhere.pth"])
    with pytest.raises(UserError, match=r"model\.weights=nowhere\.pth: no such file or run"):
        require_weights(config)
    config.resume = "run"
    require_weights(config)
