"""`from glimpse import train, load`: runs from Python that leave the process as it was."""

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import glimpse
from glimpse.errors import UserError
from glimpse.runs.folder import read_run
from glimpse.runs.settings import overrides_of
from glimpse.runs.trained import TrainedRun

QUICK = (
    "model=linear", "data=digits", "trainer=cpu", "logger=none", "callbacks.pictures=null",
    "optimizer.lr=0.05", "scheduler=constant",
)  # fmt: skip


def surroundings() -> dict[str, Any]:
    """What a run could leave behind."""
    return {
        "hydra": GlobalHydra.instance().hydra,
        "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "precision": torch.get_float32_matmul_precision(),
        "levels": [logging.getLogger(n).level for n in ("lightning.pytorch", "lightning.fabric")],
        "argv": list(sys.argv),
        "folder": Path.cwd(),
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("scripting")
    before = surroundings()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = (torch.rand(()).item(), random.random(), np.random.rand())
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    run = glimpse.train(*QUICK, "trainer.max_epochs=2", f"output_dir='{folder}/my runs (1)'")
    assert (torch.rand(()).item(), random.random(), np.random.rand()) == expected
    assert surroundings() == before
    return run


def test_it_is_a_run_like_any_other(trained: TrainedRun) -> None:
    run = read_run(trained.folder)
    assert (run.status, run.data, run.model) == ("finished", "digits", "linear")
    assert set(overrides_of(trained.folder)) >= {"model=linear", "trainer.max_epochs=2"}
    assert trained.metrics == run.metrics
    assert trained.metrics["test/acc"] > 0.5
    assert trained.curves["epoch"] == [1, 2]
    accuracy = max(trained.curves["val/acc"])
    assert repr(trained) == f"TrainedRun({str(trained.folder)!r}, val/acc={accuracy:.4f})"
    assert isinstance(trained.model, torch.nn.Module)
    assert not trained.model.training


def test_images_of_every_kind_are_predicted_alike(trained: TrainedRun, tmp_path: Path) -> None:
    pixels = trained.data.stored_images("val", np.arange(3))  # (3, 8, 8, 1)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image[:, :, 0]).save(file)
    expected = trained.predict(files)
    assert [one.probability for one in expected] == [
        max(p.probabilities.values()) for p in expected
    ]
    assert list(expected[0].probabilities) == list(trained.spec.class_names)
    whole = trained.predict("val")
    assert [one.label for one in expected] == [whole.class_names[i] for i in whole.predicted[:3]]
    assert [one.label for one in whole] == [whole.class_names[i] for i in whole.predicted]
    assert whole[2].probabilities == pytest.approx(expected[2].probabilities, rel=1e-4)
    for images in (
        [str(file) for file in files],
        [Image.fromarray(image[:, :, 0]) for image in pixels],
        pixels,
        pixels[..., 0],
        list(pixels),
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        list(torch.from_numpy(pixels).permute(0, 3, 1, 2)),
    ):
        assert trained.predict(images) == expected
    for one in (files[0], str(files[0]), pixels[0], Image.fromarray(pixels[0, :, :, 0])):
        [found] = trained.predict(one)
        assert found.probabilities == pytest.approx(expected[0].probabilities, rel=1e-4)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8)), "values of float64, expected uint8"),
        (np.zeros(8, np.uint8), r"the shape 8, expected \(H, W\)"),
        (np.zeros((0, 8), np.uint8), "the shape 0×8, expected at least one pixel"),
        (np.array(5, np.uint8), r"the shape \(\), expected \(H, W\)"),
        (torch.zeros(8, 8, dtype=torch.bfloat16), "values of float32, expected uint8"),
        (3, "int is not an image"),
        (["no.png"], "no.png"),
        (Path(), "is a folder, expected image files: type glimpse predict"),
    ],
)
def test_what_is_no_image_is_named(trained: TrainedRun, images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trained.predict(images)


def test_a_truncated_image_is_named_though_pillow_has_opened_it(
    trained: TrainedRun, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) * 2 // 3])
    with Image.open(tmp_path / "cut.jpg") as image, pytest.raises(UserError, match="truncated"):
        trained.predict(image)


@pytest.mark.parametrize("as_path", [str, Path])
def test_it_is_loaded_from_a_folder_or_a_checkpoint(trained: TrainedRun, as_path: Any) -> None:
    pixels = trained.data.stored_images("val", np.arange(2))
    for path in (trained.folder, trained.checkpoint):
        before = surroundings()
        loaded = glimpse.load(as_path(path))
        assert surroundings() == before
        assert loaded.predict(pixels) == trained.predict(pixels)
        assert loaded.metrics == trained.metrics


def test_it_trains_twice_in_a_process_and_resumes(trained: TrainedRun, tmp_path: Path) -> None:
    again = glimpse.train(*QUICK, "trainer.max_epochs=1", "test=false", f"output_dir={tmp_path}")
    resumed = glimpse.train(f"resume={again.folder}", "trainer.max_epochs=2")
    assert resumed.folder == again.folder
    assert resumed.curves["epoch"] == [1, 2]
    assert resumed.curves["val/acc"] == pytest.approx(trained.curves["val/acc"])
    assert read_run(again.folder).settings["trainer.max_epochs"] == "1, then 2"
    assert "trainer.max_epochs=2" in overrides_of(again.folder)  # a later resume keeps it


def test_a_refused_resume_leaves_the_folder(trained: TrainedRun, tmp_path: Path) -> None:
    folder = tmp_path / "killed early"  # such as in a download
    shutil.copytree(trained.folder / ".hydra", folder / ".hydra")
    with pytest.raises(UserError, match="expected at least 0"):
        glimpse.train(f"resume={folder}", "optimizer.lr=-1")
    assert (folder / ".hydra" / "overrides.yaml").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=linear", "did you mean model"),
        ("model=linaer", "did you mean linear"),
        ("seed=1,2", "several values for one run: call train once for each value$"),
        ("data.folds=3", "or call train once for each value$"),
        ("-m", "without flags"),
        ("resume=nowhere", "there is no such folder"),
        ("data.batch_size=0", "expected at least 1"),
        (3, "3: expected overrides as text"),
        ("sweep.plan=true", "is a setting of sweeps: call train once for each value$"),
        ("hydra/sweeper=search", "is a setting of sweeps: call train once for each value$"),
        ("+hydra.job.foo=1", "hydra.job.foo is not a key of this configuration"),
        ("seed = 1", "a space before =; type seed=1"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(
    override: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = surroundings()
    with pytest.raises(UserError, match=message) as error:
        glimpse.train("trainer=cpu", override)
    assert "\n" not in str(error.value)
    assert surroundings() == before
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "override",
    [
        "trainer.limit_train_batches=0",
        "check=true",
        "task=lr_find",
        "trainer.fast_dev_run=true",
        "trainer.max_epochs=0",
    ],
)
def test_what_saves_no_checkpoint_is_refused_before_it_runs(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match=f"^{override} saves no checkpoint, expected a run to"):
        glimpse.train(*QUICK, override, f"output_dir={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_two_batch_sizes_are_refused(tmp_path: Path) -> None:
    both = ("data.batch_size=8", "data.global_batch_size=8")
    with pytest.raises(UserError, match="type only one of them"):
        glimpse.train(*QUICK, *both, f"output_dir={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_a_split_that_the_data_lacks_is_named(trained: TrainedRun) -> None:
    run = glimpse.load(trained.folder, overrides=["data.test_fraction=0.2", "data.val_fraction=0"])
    with pytest.raises(
        UserError, match="test: the data of this run has no such split, only train, val"
    ):
        run.predict("test")


def test_importing_glimpse_imports_nothing_heavy() -> None:
    code = (
        "import sys, glimpse; heavy = {'torch', 'hydra', 'lightning', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; from glimpse import train; assert callable(train)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = glimpse.nothing  # type: ignore[attr-defined]


SCRIPT = """
from {module} import train

print("script starts")
run = train(
    "data=image_folder", "data.root=photos", "data.presize=8", "model=linear", "trainer=cpu",
    "trainer.max_epochs=1", "data_dir=data", "data.num_workers=2", "data.cache={cache}",
)
print("result:", run.{result})
"""


@pytest.mark.parametrize(
    ("module", "result", "cache", "from_input"),
    [
        ("glimpse", "metrics['val/acc']", "true", False),
        pytest.param("glimpse", "metrics['val/acc']", "false", True, marks=pytest.mark.slow),
        pytest.param(
            "glimpse.notebook", "curves['val/acc']", "true", False, marks=pytest.mark.slow
        ),
    ],
)
def test_a_script_without_a_guard_runs_once(
    tmp_path: Path, module: str, result: str, cache: str, from_input: bool
) -> None:
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(300):  # enough for two decoding processes
            image = np.full((9, 9, 3), 200 if name == "a" else 20, np.uint8)
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{number}.png")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(module=module, result=result, cache=cache))
    done = subprocess.run(
        [sys.executable, "-" if from_input else "script.py"],
        input=script.read_text() if from_input else None,
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("script starts") == 1
    assert done.stdout.count("result:") == 1
