"""Imagenette and Imagewoof in the layout of their archives: parts, classes, and their recipes."""

import json
from pathlib import Path

import pytest

from conftest import Execute, composed, slow
from glimpse.assembly import build_data
from glimpse.errors import UserError
from makers import MAKERS, make_imagenette

SMALL = ("data.presize=48", "data.size=40", "data.num_workers=1")
NAMES = {
    "imagenette": ("tench", "English springer", "cassette player"),
    "imagewoof": ("n02086240", "n02087394", "n02088364"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_train_validates_and_the_folder_val_tests(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path, per_class=10)
    config, _ = composed(f"data={name}", f"data_dir={tmp_path}", *SMALL)
    data = build_data(config)
    assert data.spec.class_names == NAMES[name]
    sizes = {split: len(chosen.rows) for split, chosen in data.splits.items()}
    assert sizes == {"train": 27, "val": 3, "test": 15}
    assert (data.spec.height, data.spec.width) == (40, 40)


def test_without_its_files_imagewoof_says_where_they_are(tmp_path: Path) -> None:
    make_imagenette(tmp_path)  # whose name is similar
    config, _ = composed("data=imagewoof", f"data_dir={tmp_path}", *SMALL)
    said = (
        rf"no such folder; download https://\S+/imagewoof2-160\.tgz and unpack it into {tmp_path}$"
    )
    with pytest.raises(UserError, match=said):
        build_data(config)


@pytest.mark.parametrize("name", ["imagenette", slow("imagewoof")])
def test_the_recipe_runs_on_its_layout(execute: Execute, tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path / "data", per_class=4)
    folder = execute(
        f"experiment={name}_fast", f"data_dir={tmp_path / 'data'}", "trainer=cpu",
        "data.batch_size=4", "data.val_fraction=0.25", "data.num_workers=1",
        "model.widths=[8,8,8,8]", "trainer.max_epochs=3", "test=val",
    )  # fmt: skip
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert {"val/acc", "val/acc_flip", "test/acc", "test/acc_flip"} <= set(metrics)
