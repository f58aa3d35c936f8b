"""A trained network from a run folder or a checkpoint alone: answers, splits, and what it refuses."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Execute
from folders import write_run, write_start
from glimpse.checkpoint_file import AtomicCheckpointIO
from glimpse.errors import UserError
from glimpse.found_checkpoint import find_checkpoint
from glimpse.insight.predictions import images_of, names_of
from glimpse.runs.trained import TrainedRun
from makers import MAKERS


def test_it_answers_as_it_was_measured(trained_run: Path) -> None:
    trained = TrainedRun(trained_run)
    summary = json.loads((trained_run / "summary.json").read_text())
    for split in ("val", "test"):
        found = trained.predict(split)
        assert found.correct.mean() == pytest.approx(summary["metrics"][f"{split}/acc"])
        assert found.losses.mean() == pytest.approx(summary["metrics"][f"{split}/loss"], rel=1e-4)
    assert trained.epoch == summary["best_epoch"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("tset", "tset is neither a split nor a file: expected train, val, test or a path"),
        ("https://a.b/c.png", "https://a.b/c.png is a web address, expected a file"),
        ([Path("https://a.b/c.png")], "https://a.b/c.png is a web address, expected a file"),
    ],
)
def test_what_is_no_image_is_named(trained_run: Path, images: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        TrainedRun(trained_run).predict(images)


def test_curves_have_a_value_for_each_epoch(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text("epoch,train/acc,val/acc\n1,0.5,\n2,0.6,0.0\n")
    curves = TrainedRun(tmp_path / "run").curves
    assert curves["train/acc"] == [0.5, 0.6]
    assert curves["val/acc"] == pytest.approx([np.nan, 0], nan_ok=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_network_that_a_gpu_trained_is_read_without_one(
    trained_run: Path, tmp_path: Path
) -> None:
    saved = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    saved["glimpse"]["config"]["trainer"]["accelerator"] = "gpu"
    AtomicCheckpointIO().save_checkpoint(saved, tmp_path / "gpu.ckpt")
    assert TrainedRun(tmp_path / "gpu.ckpt").device.type == "cpu"
    with pytest.raises(UserError, match=r"no such device; type trainer\.accelerator=cpu"):
        TrainedRun(tmp_path / "gpu.ckpt", overrides=["trainer.accelerator=gpu"])


def test_a_checkpoint_alone_is_enough(trained_run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "moved.ckpt"
    shutil.copy(trained_run / "checkpoints" / "best.ckpt", alone)
    trained = TrainedRun(alone)
    assert trained.folder == tmp_path / "moved"
    images = torch.from_numpy(trained.data.stored_images("val", np.arange(5)))
    expected = np.exp(TrainedRun(trained_run).predict("val").log_probabilities[:5])
    assert trained.probabilities(images).numpy() == pytest.approx(expected, abs=1e-6)


def test_images_and_their_labels_stay_together(trained_run: Path) -> None:
    data = TrainedRun(trained_run).data
    positions = np.array([7, 0, 3])
    images = images_of(data, "val", positions)
    assert images.shape == (3, 1, 8, 8)
    assert images.max() <= 1
    batch = next(iter(data.batches.loader("val")))
    expected = batch.images[positions].permute(0, 3, 1, 2) / 255
    assert torch.allclose(images, expected, atol=1e-6)
    assert names_of(data, "val")[7] == f"train[{data.splits['val'].rows[7]}]"


@pytest.mark.parametrize("option", ["data.cache=false", "data.cache=true"])
def test_files_keep_their_paths(execute: Execute, tmp_path: Path, option: str) -> None:
    MAKERS["cifar10"](tmp_path / "data", per_class=6)
    MAKERS["tiny_imagenet"](tmp_path / "data", per_class=6)
    options = ("model=linear", "trainer=cpu", "trainer.max_epochs=1", "callbacks.pictures=null")
    folder = execute("data=tiny_imagenet", option, *options)
    trained = TrainedRun(folder)
    names = names_of(trained.data, "val")
    for number in (0, 4):
        pixels = np.asarray(Image.open(names[number]).convert("RGB"))
        [stored] = trained.data.stored_images("val", np.array([number]))
        assert (pixels == stored).all()


def test_left_out_files_do_not_shift_the_names(execute: Execute, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for number in range(12):
            path = tmp_path / "photos" / name / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(255, size=(8, 8, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "cat" / "03.png").write_text("no image")
    folder = execute(
        "data=image_folder", f"data.root={tmp_path / 'photos'}", "data.on_bad_file=skip",
        "model=linear", "trainer=cpu", "trainer.max_epochs=1", "callbacks.pictures=null",
    )  # fmt: skip
    data = TrainedRun(folder).data
    for split in data.splits:
        names = names_of(data, split)
        stored = data.stored_images(split, np.arange(len(names)))
        for name, pixels in zip(names, stored, strict=True):
            assert (np.asarray(Image.open(name)) == pixels).all()


def test_what_is_no_run_is_refused(tmp_path: Path, trained_run: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(UserError, match="expected a run folder"):
        find_checkpoint(tmp_path)
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes((trained_run / "checkpoints" / "best.ckpt").read_bytes()[:2000])
    with pytest.raises(UserError, match="is damaged"):
        TrainedRun(cut)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(UserError, match="not a checkpoint of"):
        TrainedRun(foreign)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "the run is finished, but they were removed or not copied: copy them"),
        (
            {"status": "failed", "error": "no disk"},
            r"is failed \(no disk\) and saved none: type another run",
        ),
        ({"settings": {"task": "lr_find"}}, "the run has task=lr_find, which saves none"),
        (None, "the run has not saved a checkpoint yet"),
    ],
)
def test_a_run_without_checkpoints_says_why(
    tmp_path: Path, changes: dict[str, Any] | None, said: str
) -> None:
    write_start(tmp_path) if changes is None else write_run(tmp_path, **changes)
    with pytest.raises(UserError, match=said):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("size", [0, 2000])
def test_the_last_checkpoint_is_suggested_for_a_damaged_best(
    trained_run: Path, tmp_path: Path, size: int
) -> None:
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(trained_run / "checkpoints", checkpoints)
    best, last = checkpoints / "best.ckpt", checkpoints / "last.ckpt"
    best.write_bytes(best.read_bytes()[:size])
    with pytest.raises(UserError, match=f"or it is damaged: type {re.escape(str(last))}$"):
        TrainedRun(tmp_path)
    last.write_bytes(b"")
    with pytest.raises(UserError, match=r"or it is damaged$"):
        TrainedRun(tmp_path)


def changed(trained_run: Path, path: Path, change: Any) -> Path:
    saved = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    change(saved)
    torch.save(saved, path)
    return path


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("os.system", r"needs os\.system, and"),
        ("torch.load", r"expected a torch\.nn\.Module"),
        ("torch", r"expected a torch\.nn\.Module, as package\.module\.Class"),
        ("torch.nn.Linear.forward", r"no module torch\.nn\.Linear"),
        ("torchvision.models.resnet.partial", r"expected a torch\.nn\.Module"),
        ("timm.create_model", "is a function"),
        ("glimpse.config.build.build", r"expected a torch\.nn\.Module"),
    ],
)
def test_a_foreign_target_is_not_called(
    trained_run: Path, tmp_path: Path, target: str, reason: str
) -> None:
    def change(saved: Any) -> None:
        saved["glimpse"]["config"]["model"] = {"_target_": target, "command": "touch it"}

    path = tmp_path / "evil.ckpt"
    with pytest.raises(UserError, match=f"^{path}.*{reason}"):
        TrainedRun(changed(trained_run, path, change))


def test_a_target_within_an_argument_is_refused(trained_run: Path, tmp_path: Path) -> None:
    def change(saved: Any) -> None:
        saved["glimpse"]["config"]["data"]["x"] = {"_target_": "torch.nn.Identity"}

    with pytest.raises(UserError, match=r"data\.x\._target_.* is not allowed inside another part"):
        TrainedRun(changed(trained_run, tmp_path / "evil.ckpt", change))


def test_weights_of_another_shape_are_named(trained_run: Path, tmp_path: Path) -> None:
    def change(saved: Any) -> None:
        saved["state_dict"]["network.0.weight"] = torch.zeros(1)

    with pytest.raises(UserError, match="does not fit its own model"):
        TrainedRun(changed(trained_run, tmp_path / "odd.ckpt", change))


def test_a_checkpoints_configuration_is_data(trained_run: Path, tmp_path: Path) -> None:
    def change(saved: Any) -> None:
        saved["glimpse"]["config"]["data_dir"] = "${oc.env:HOME}"

    with pytest.raises(UserError, match="contains an interpolation, which is not allowed"):
        TrainedRun(changed(trained_run, tmp_path / "odd.ckpt", change))


def test_a_checkpoint_downloads_nothing(trained_run: Path, tmp_path: Path) -> None:
    def change(saved: Any) -> None:
        saved["glimpse"]["config"]["data"]["url"] = "file:///elsewhere.zip"

    trained = TrainedRun(changed(trained_run, tmp_path / "odd.ckpt", change))
    assert trained.config.data.url is None


def test_settings_in_place_of_the_runs_own(trained_run: Path) -> None:
    assert TrainedRun(trained_run, overrides=["data.batch_size=7"]).data.batch_size == 7
    with pytest.raises(UserError, match=r"did you mean data\.batch_size"):
        TrainedRun(trained_run, overrides=["data.batchsize=7"])
    with pytest.raises(UserError, match="expected at least 1"):
        TrainedRun(trained_run, overrides=["data.batch_size=0"])
    with pytest.raises(UserError, match="expected KEY=VALUE"):
        TrainedRun(trained_run, overrides=["data.batch_size"])


def test_other_data_is_noticed(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _ = TrainedRun(trained_run, overrides=["data.split_seed=5"]).data
    assert "the data or its splits differ" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"data\.classes=\[3,5\].*type data\.classes=null"):
        _ = TrainedRun(trained_run, overrides=["data.classes=['3','5']"]).data
    with pytest.raises(UserError, match="--split test: expected one of train, val"):
        TrainedRun(trained_run, overrides=["data.val_fraction=0"]).require_split(
            "test", default="val"
        )


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_other_precisions(execute: Execute, precision: str) -> None:
    folder = execute(
        "model=convnet", "model.widths=[4,8]", "model.hidden=8", "trainer=cpu",
        "trainer.max_epochs=1", f"trainer.precision={precision}", "trainer.limit_train_batches=3",
    )  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    accuracy = TrainedRun(folder).predict("val").correct.mean()
    assert accuracy == pytest.approx(summary["metrics"]["val/acc"])
