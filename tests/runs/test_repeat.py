"""`glimpse repeat`: the same bits from the same record, and where they differ, what it comes from."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from typer.testing import CliRunner

from conftest import Execute, slow
from glimpse.callbacks.stop_on_signal import StopOnSignal
from glimpse.checkpoint_file import AtomicCheckpointIO
from glimpse.cli.main import app
from glimpse.errors import UserError
from glimpse.runs.folder import find_runs
from glimpse.runs.groups import group
from glimpse.runs.repeat import Repetition, prepare, train_again
from glimpse.runs.same_bits import compare_bits, first_of_epochs, first_of_tensors
from glimpse.scripting import process_unchanged, run

TINY = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=64", "data.num_val=32",
    "data.batch_size=16", "model=mlp", "model.widths=[8]", "trainer=cpu",
    "trainer.max_epochs=2", "callbacks.pictures=null",
)  # fmt: skip


def repeat(*arguments: object, exit_code: int = 0) -> str:
    """What `glimpse repeat` prints."""
    result = CliRunner().invoke(app, ["repeat", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == exit_code, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with its complete record; to copy, not to change."""
    outputs = tmp_path_factory.mktemp("once")
    _, folder = run((*TINY, "logger=none", f"output_dir={outputs}"))
    return folder


@pytest.fixture
def original(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in a folder of its own to work in."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, tmp_path / "original")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# The same command twice -----------------------------------------------------------------------------

EVERYTHING = (
    "model=convnet_bn", "model.widths=[8,16]", "model.hidden=16", "augment=[crop_flip,cutmix]",
    "callbacks=[ema]", "optimizer=muon", "data.batch_size=256",
)  # fmt: skip


@pytest.mark.parametrize("options", [(), EVERYTHING])
def test_the_same_command_twice_gives_the_same_bits(
    execute: Execute, tmp_path: Path, options: tuple[str, ...]
) -> None:
    short = (
        "trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=6", "logger=none",
        "test=val", *options,
    )  # fmt: skip
    one = execute(*short, folder=tmp_path / "one")
    other = execute(*short, folder=tmp_path / "other")
    found = compare_bits(one, other)
    assert found.differences == []
    assert len(found.equal) == 3
    third = execute(*short, "seed=1", "trainer.max_epochs=1", folder=tmp_path / "third")
    assert len(compare_bits(one, third).differences) == 4


@pytest.mark.gpu
@pytest.mark.parametrize("options", [(), EVERYTHING])
def test_the_same_command_twice_on_a_gpu(
    execute: Execute, tmp_path: Path, options: tuple[str, ...]
) -> None:
    short = ("trainer.max_epochs=2", "logger=none", "trainer.deterministic=true", *options)
    with process_unchanged():
        one = execute(*short, folder=tmp_path / "one")
        other = execute(*short, folder=tmp_path / "other")
    assert compare_bits(one, other).differences == []


# The command ----------------------------------------------------------------------------------------


def test_a_repeated_run_is_equal_and_leaves_the_original_as_it_was(original: Path) -> None:
    before = {path: path.read_bytes() for path in original.rglob("*") if path.is_file()}
    printed = repeat(original)
    took = json.loads((original / "summary.json").read_text())["seconds"]
    assert f"the original took 0:0{round(took)}" in printed
    assert "equal, bit for bit: metrics.csv (2 epochs), best.ckpt" in printed
    assert {path: path.read_bytes() for path in original.rglob("*") if path.is_file()} == before
    [again] = (original.parent / "outputs" / "synthetic-mlp").iterdir()
    assert (again / ".hydra" / "overrides.yaml").is_file()
    assert compare_bits(original, again).differences == []


def test_a_report_knows_it_for_a_repetition(original: Path, tmp_path: Path) -> None:
    words = (*TINY, "callbacks=[early_stopping]", "logger=[tensorboard]", "output_dir=runs")
    _, folder = run(words)
    repeat(folder, "--out", tmp_path / "runs" / "again")
    [found] = group(find_runs(tmp_path / "runs"))
    assert len(found.runs) == 2
    assert not found.differs


def test_the_number_of_epochs_may_be_replaced(original: Path) -> None:
    told = repeat(original, "trainer.max_epochs=1", exit_code=1)
    assert "trainer.max_epochs" in told
    [again] = Path("outputs").glob("*/*")
    assert json.loads((again / "summary.json").read_text())["epochs"] == 1


def test_moved_data_is_found_by_an_override(original: Path) -> None:
    assert "equal, bit for bit" in repeat(original, "data_dir=elsewhere")
    assert "did you mean data_dir" in repeat(original, "--set", "data_dri=x", exit_code=1)


def test_what_differs_first_is_named_with_its_cause(original: Path) -> None:
    path = original / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    name = list(saved["state_dict"])[-1]
    saved["state_dict"][name][0] += 1
    torch.save(saved, path)
    metrics = original / "metrics.csv"
    header, first, second = metrics.read_text().splitlines()
    metrics.write_text("\n".join([header, first, "2,8,9.5" + second[second.index(",", 4) :], ""]))
    environment = original / "environment.json"
    versions = json.loads(environment.read_text())["versions"]
    versions |= {"torch": "0.1"}
    change(environment, git=None, threads=3, processor="abacus", versions=versions)
    printed = repeat(original, exit_code=1)
    assert "equal: best.ckpt" in printed
    assert "metrics.csv differs first in epoch 2, column train/loss: 9.5, now" in printed
    assert "last.ckpt differs first in layer" in printed
    assert "its bias, by up to 1" in printed
    assert "likely cause: processor: abacus, now" in printed
    assert "versions: torch 0.1, now 2." in printed


def test_a_change_of_settings_is_the_likely_cause(original: Path) -> None:
    printed = repeat(original, "seed=5", exit_code=1)
    assert "metrics.csv differs first in epoch 1, column train/loss" in printed
    assert "likely cause: settings: seed=5 was typed" in printed


def test_other_data_is_the_likely_cause(original: Path) -> None:
    path = original / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["glimpse"]["fingerprint"] = "0" * 64
    saved["state_dict"] = {name: tensor * 2 for name, tensor in saved["state_dict"].items()}
    torch.save(saved, path)
    assert "likely cause: data: the images" in repeat(original, exit_code=1)


@pytest.mark.parametrize(
    ("status", "message"),
    [("interrupted", "type python train.py resume="), ("failed", "this one is failed")],
)
def test_only_a_finished_run_is_repeated(original: Path, status: str, message: str) -> None:
    change(original / "summary.json", status=status)
    assert message in repeat(original, exit_code=1)


def test_a_folder_with_something_else_is_left_alone(original: Path, tmp_path: Path) -> None:
    for taken in (original, tmp_path):
        before = sorted(path.name for path in taken.iterdir())
        assert "expected a new folder" in repeat(original, "--out", taken, exit_code=1)
        assert sorted(path.name for path in taken.iterdir()) == before


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Send this process SIGTERM at the end of an epoch's first batch."""
    original = StopOnSignal.on_train_batch_end

    def with_signal(self: StopOnSignal, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.current_epoch == epoch and arguments[3] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, *arguments)

    monkeypatch.setattr(StopOnSignal, "on_train_batch_end", with_signal)


def test_an_interrupted_repetition_goes_on(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=1)
        printed = repeat(original, "--out", "again", exit_code=143)
    assert "to continue and compare, type: glimpse repeat" in printed
    assert "equal, bit for bit" in repeat(original, "--out", "again")
    printed = repeat(original, "--out", "again")  # done: it is compared again, not trained
    assert "equal, bit for bit" in printed
    assert "epoch 1/2" not in printed


def test_a_run_that_was_stopped_and_extended_is_repeated_in_its_stages(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("trainer.max_epochs=4", f"resume={original}")
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=3)
        with pytest.raises(KeyboardInterrupt):
            run(more)
    run(more)
    assert json.loads((original / "summary.json").read_text())["extended_from"] == [2]
    assert prepare(original).stages == (2, 4)
    assert "equal, bit for bit: metrics.csv (4 epochs)" in repeat(original)


def test_a_run_that_was_stopped_and_continued_with_other_epochs_is_not_repeated(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=2)
        with pytest.raises(KeyboardInterrupt):
            run(("trainer.max_epochs=4", f"resume={original}"))
    run(("trainer.max_epochs=3", f"resume={original}"))
    found = json.loads((original / "summary.json").read_text())
    assert ("extended_from" in found, found["changed_from"]) == (False, [2, 4])
    printed = repeat(original, exit_code=1)
    assert "continued with another trainer.max_epochs (2, then 4, then 3)" in printed


@pytest.mark.slow
def test_settings_that_changed_at_a_resume_are_the_likely_cause(original: Path) -> None:
    run(("trainer.max_epochs=4", "optimizer.lr=0.5", f"resume={original}"))
    printed = repeat(original, exit_code=1)
    assert "the run was resumed with optimizer.lr=0.5 in place of 0.001" in printed


# What a record may not do ---------------------------------------------------------------------------


def test_a_setting_whose_group_was_replaced_at_a_resume_is_not_recorded(original: Path) -> None:
    run(("scheduler=step", "scheduler.every=1", *TINY, "logger=none", "hydra.run.dir=resumed"))
    typed = ("resume=resumed", "scheduler=constant", "trainer.max_epochs=3")
    run(typed)
    environment = json.loads(Path("resumed/environment.json").read_text())
    record = json.dumps(environment | {"command": ["train.py", *typed]})
    Path("resumed/environment.json").write_text(record)
    words = prepare(Path("resumed")).overrides
    assert "scheduler=constant" in words
    assert "trainer.max_epochs=3" in words
    assert "scheduler.every=1" not in words


def test_what_hydra_would_build_is_not_taken_from_the_folder(original: Path) -> None:
    record = original / ".hydra" / "overrides.yaml"
    with record.open("a") as file:
        file.write('- "+hydra.callbacks.x._target_=subprocess.Popen"\n')
        file.write('- "+hydra.callbacks.x.args=[touch,EXECUTED]"\n')
    assert "remove the line" in repeat(original, exit_code=1)
    assert not Path("EXECUTED").exists()
    assert not Path("outputs").exists()


def test_a_place_outside_the_folder_is_not_taken_from_the_record(
    original: Path, tmp_path: Path
) -> None:
    for name in ("best", "last"):
        path = original / "checkpoints" / f"{name}.ckpt"
        saved = torch.load(path, weights_only=True)
        saved["glimpse"]["config"]["callbacks"]["x"] = {
            "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
            "dirpath": str(tmp_path / "victim"),
        }
        AtomicCheckpointIO().save_checkpoint(saved, path)
    assert "a place outside the run folder" in repeat(original, exit_code=1)
    assert not (tmp_path / "victim").exists()


def test_a_foreign_target_is_refused_unless_trusted(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "from pathlib import Path\nfrom torch.nn import CrossEntropyLoss\nPath('EXECUTED').touch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("best", "last"):
        path = original / "checkpoints" / f"{name}.ckpt"
        saved = torch.load(path, weights_only=True)
        saved["glimpse"]["config"]["loss"]["_target_"] = "elsewhere.CrossEntropyLoss"
        torch.save(saved, path)
    assert "--trust elsewhere" in repeat(original, exit_code=1)
    assert not Path("EXECUTED").exists()
    assert "equal, bit for bit" in repeat(original, "--trust", "elsewhere")
    assert Path("EXECUTED").exists()


@pytest.mark.parametrize(
    ("group", "key"), [(None, "startup"), ("trainer", "plugins"), ("trainer", "model_registry")]
)
def test_a_key_that_nobody_knows_is_refused(original: Path, group: str | None, key: str) -> None:
    for path in (original / "checkpoints").iterdir():
        saved = torch.load(path, weights_only=True)
        config = saved["glimpse"]["config"]
        (config if group is None else config[group])[key] = "x"
        torch.save(saved, path)
    assert f"{key} is not a key" in repeat(original, exit_code=1)


def test_a_download_is_not_taken_from_the_record(original: Path) -> None:
    path = original / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["glimpse"]["config"]["data"]["url"] = "file:///nowhere.tar.gz"
    torch.save(saved, path)
    assert prepare(original).config.data.url is None


# Several processes, sweeps --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [slow(("trainer=ddp_cpu",))])
def test_a_run_of_two_processes(tmp_path: Path, options: tuple[str, ...]) -> None:
    _, folder = run((*TINY, "logger=none", f"output_dir={tmp_path / 'out'}", *options))
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2
    repetition: Repetition = prepare(folder, out=tmp_path / "again")
    train_again(repetition)
    assert compare_bits(folder, tmp_path / "again").differences == []


# Comparing ------------------------------------------------------------------------------------------


def test_times_do_not_count() -> None:
    one = {"epoch": 1.0, "train/loss": 0.5, "seconds": 3.0, "images_per_second": 10.0}
    assert first_of_epochs([one], [one | {"seconds": 4.0, "images_per_second": 7.0}]) is None


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([{"epoch": 1.0, "a": 0.1}, {"epoch": 2.0, "a": 0.3}], "epoch 2, column a: 0.2, now 0.3"),
        ([{"epoch": 1.0}, {"epoch": 2.0, "a": 0.2}], "epoch 1, column a: 0.1, now none"),
        ([{"epoch": 1.0, "a": 0.1}], "epoch 2: 2 epochs, now 1"),
    ],
)
def test_the_first_epoch_and_column(now: list[dict[str, float]], expected: str) -> None:
    assert first_of_epochs([{"epoch": 1.0, "a": 0.1}, {"epoch": 2.0, "a": 0.2}], now) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (torch.tensor([1.0, float("nan"), 0.0]), None),
        (torch.tensor([1.0, float("nan"), -0.0]), "by up to"),  # other bits
        (torch.tensor([1.0, float("nan"), 0.0]).double(), "by up to"),
        (torch.tensor([1.0]), r"shape (3,), now (1,)"),
    ],
)
def test_bits_are_compared_not_values(now: torch.Tensor, expected: str | None) -> None:
    before = {"network.a.weight": torch.tensor([1.0, float("nan"), 0.0])}
    found = first_of_tensors(before, {"network.a.weight": now})
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert "layer a, its weight" in found
        assert expected in found


def test_without_a_checkpoint_there_is_nothing_to_compare(original: Path) -> None:
    for path in (original / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="nothing to compare"):
        prepare(original)
