"""`glimpse data …` as it is typed: exit codes, one-line errors, and nothing heavy before it is needed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from typer.testing import CliRunner, Result

from conftest import choices
from glimpse.cli.main import app
from makers import make_image_folder, make_sign_mnist, make_tiny_imagenet


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to type in, without the configuration that conftest.py opens for others."""
    monkeypatch.chdir(tmp_path)
    state = GlobalHydra.get_state()
    GlobalHydra.instance().clear()
    yield tmp_path
    GlobalHydra.set_state(state)


def data(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["data", *arguments])


def lines(result: Result) -> list[str]:
    return [line.rstrip() for line in result.stdout.splitlines()]


def without_torch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process in which importing torch is fatal."""
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
    return subprocess.run(
        [sys.executable, "-c", "from glimpse.cli.main import app; app()", "data", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Before anything heavy --------------------------------------------------------------------------


def test_list_names_every_dataset_with_its_first_sentence(here: Path) -> None:
    result = without_torch(here, "list")
    assert result.returncode == 0, result.stderr
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in result.stdout.splitlines())
    assert set(rows) == {"name", *choices("data")}
    assert rows["sign_mnist"].endswith("27,455 training and 7,172 test images (CC0, 100 MB).")
    assert rows["mnist"].startswith("MNIST: handwritten digits, ")
    assert all(sentence.endswith(".") for name, sentence in rows.items() if name != "name")


@pytest.mark.parametrize("command", ["list", "info", "show", "check"])
def test_help_has_an_example(here: Path, command: str) -> None:
    result = without_torch(here, command, "--help")
    assert result.returncode == 0, result.stderr
    assert f"Example: glimpse data {command}" in result.stdout


@pytest.mark.parametrize("name", ["MNIST", "cifar-10"])
def test_another_spelling_of_a_dataset_is_no_path(here: Path, name: str) -> None:
    (here / name).mkdir()
    assert f"did you mean {name.lower().replace('-', '')}?" in data("info", name).stderr


@pytest.mark.parametrize("command", ["info", "show", "check"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digitz"], "data=digitz: there is no such dataset (did you mean digits?)"),
        (["digits,mnist"], "data=digits,mnist: there is no such dataset"),
        (
            ["photos.csv"],
            "expected the name of a dataset, found a path: type csv data.train=photos.csv",
        ),
        (["a/photos"], "found a path: type image_folder data.root=a/photos"),
        (["data=digits"], "expected a dataset name before any KEY=VALUE"),
        (["digits", "data=mnist"], "data=mnist: the dataset is already digits"),
        (["image_folder"], "data.root is not set"),
        (["image_folder", "data.rot=x"], "did you mean data.root?"),
        (["synthetic", "data.num_tran=3"], "did you mean data.num_train?"),
        (["digits", "augment=flap"], "did you mean flip?"),
        (["digits", "data.batch_size=0"], "expected at least 1"),
        (["digits", "data.x=["], "for text, type"),
    ],
)
def test_mistakes_are_one_line(
    here: Path, command: str, arguments: list[str], message: str
) -> None:
    result = data(command, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["info", "digitz"], ["show", "digits", "data.sed=1"]])
def test_mistakes_are_told_before_torch_is_imported(here: Path, arguments: list[str]) -> None:
    result = without_torch(here, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


# info -------------------------------------------------------------------------------------------


def test_info_prints_tables(here: Path) -> None:
    make_sign_mnist(here / "data")
    result = data("info", "sign_mnist")
    assert result.exit_code == 0, result.output
    said = lines(result)
    assert said[0] == "sign_mnist: 28×28 grey, 26 classes"
    assert re.search(r"^train +96 +0\.0417 +all of it$", "\n".join(said), re.M)
    assert re.search(r"^J +0 +0$", "\n".join(said), re.M)  # of the least frequent
    assert "… 16 more (--all)" in said
    assert "no duplicate images" in said
    assert not any(line.startswith("M ") for line in said)
    assert any(line.startswith("M ") for line in lines(data("info", "sign_mnist", "--all")))


def test_info_as_json_is_nothing_but_json(here: Path) -> None:
    make_tiny_imagenet(here / "data")
    result = data("info", "tiny_imagenet", "--json", "data.num_workers=1")
    facts = json.loads(result.stdout)
    assert facts["splits"]["train"]["class_counts"] == [4] * 6
    assert facts["splits"]["train"]["num_grey"] == 6
    assert facts["files"]["formats"] == {"JPEG": 36}
    assert facts["height"] == 64
    assert len(facts["mean"]) == 3


def test_info_names_the_first_examples_of_what_is_odd_or_twice(here: Path) -> None:
    make_image_folder(here)
    (here / "photos/val/owl/owl_1.png").write_bytes(
        (here / "photos/train/cat/cat_0.png").read_bytes()
    )
    Image.new("RGBA", (24, 20)).save("photos/train/dog/dog_3.png", "GIF")
    result = data("info", "image_folder", "data.root=photos", "data.num_workers=1")
    assert result.exit_code == 0, result.output
    said = lines(result)
    assert "images of val also in train: 6" in said  # the copies are made alike
    assert "identical images with different labels: 1" in said
    assert "  1  train  cat  photos/train/cat/cat_0.png" in said
    assert "  1  val    owl  photos/val/owl/owl_1.png" in said
    assert "odd: 1 GIF named .png: photos/train/dog/dog_3.png" in result.stdout


def test_info_of_missing_data_is_one_line(here: Path) -> None:
    result = data("info", "image_folder", "data.root=nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: data.root=nowhere: no such folder; type data.root=<your images>"
    )
    assert result.stderr.count("\n") == 1


# show -------------------------------------------------------------------------------------------


def test_show_writes_the_picture_and_prints_where(here: Path) -> None:
    result = data("show", "digits", "augment=crop_flip", "--num", "8")
    assert lines(result) == ["data-digits.png"]
    with Image.open("data-digits.png") as whole:
        assert whole.width > whole.height
    result = data("show", "digits", "--out", "new/one.png", "--num", "1")
    assert lines(result) == ["new/one.png"]


def test_show_says_what_it_cannot_write(here: Path) -> None:
    result = data("show", "digits", "--out", "a.jpg")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: --out a.jpg: ")
    assert result.stderr.count("\n") == 1


# A folder of configuration files of one's own ------------------------------------------------------


def test_data_sets_of_ones_own_are_looked_at_like_ours(here: Path) -> None:
    make_image_folder(here)
    (here / "conf" / "data").mkdir(parents=True)
    for name, text in {
        "mine": "# My photos. And more.\ndefaults: [image_folder]\nroot: photos\n",
        "digits": "# Mine too.\ndefaults: [image_folder]\nroot: photos\n",  # replaces ours
    }.items():
        (here / "conf" / "data" / f"{name}.yaml").write_text(text)
    own = ("--config-dir", "conf")
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in lines(data("list", *own)))
    assert (rows["mine"], rows["digits"]) == ("My photos.", "Mine too.")
    assert rows["mnist"]
    for name in ("mine", "digits"):
        result = data("info", name, *own)
        assert result.exit_code == 0, result.output
        assert lines(result)[0] == f"{name}: 24×20 RGB, 3 classes"
    assert data("check", "mine", "data.num_workers=1", *own).exit_code == 0
    assert data("show", "mine", "-cd", "conf", "--out", "mine.png").exit_code == 0
    assert data("info", "mine", "hydra.searchpath=[file://conf]").exit_code == 0


def test_a_slip_in_a_folder_of_ones_own_is_named(here: Path) -> None:
    (here / "conf" / "data").mkdir(parents=True)
    (here / "conf" / "data" / "mine.yaml").write_text("defaults: [image_folder]\n")
    found = data("info", "mien", "--config-dir", "conf")
    assert "did you mean mine?" in found.stderr
    found = data("info", "mine", "data.rot=x", "--config-dir", "conf")
    assert "did you mean data.root?" in found.stderr
    for words in (("info", "mine"), ("list",)):
        found = data(*words, "--config-dir", "cnof")
        assert "--config-dir cnof: there is no such folder, expected the folder of" in found.stderr


# check ------------------------------------------------------------------------------------------


def test_check_of_whole_data_exits_with_0(here: Path) -> None:
    make_image_folder(here)
    result = data("check", "image_folder", "data.root=photos", "data.num_workers=1")
    assert result.exit_code == 0, result.output
    assert lines(result)[-2:] == ["every image: 18", "no broken files"]
    assert "FAILED" not in result.stdout


def truncated(folder: Path) -> None:
    for name in ("train/cat/cat_0.png", "val/dog/dog_1.png"):
        os.truncate(folder / name, 150)


def web_page(folder: Path) -> None:
    for name in ("train/cat/cat_0.png", "val/dog/dog_1.png"):
        (folder / name).write_text("<html>not found</html>")


@pytest.mark.parametrize("damage", [truncated, web_page])
def test_check_names_every_broken_file(here: Path, damage: Callable[[Path], None]) -> None:
    make_image_folder(here)
    damage(here / "photos")
    result = data("check", "image_folder", "data.root=photos", "data.num_workers=1")
    assert result.exit_code == 1
    said = lines(result)
    after = said[said.index("every image: 18") + 1 :]
    assert ["cat_0.png" in line for line in after] == [True, False, False]
    assert ["dog_1.png" in line for line in after] == [False, True, False]
    assert after[-1] == "2 broken"


def test_check_says_what_images_of_many_sizes_need(here: Path) -> None:
    make_image_folder(here)
    Image.new("RGB", (30, 30)).save("photos/train/dog/dog_2.png")
    result = data("check", "image_folder", "data.root=photos", "data.num_workers=1")
    assert result.exit_code == 1
    assert re.search(r"^sized +FAILED: .*type data\.presize=64", result.stdout, re.M)
    again = data("check", "image_folder", "data.root=photos", "data.presize=16")
    assert again.exit_code == 0, again.output


def test_check_says_what_is_missing(here: Path) -> None:
    result = data("check", "image_folder", "data.root=nowhere")
    assert result.exit_code == 1
    assert "data.root=nowhere: no such folder" in result.stderr
