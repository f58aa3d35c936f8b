"""Each trick of lightning_compat.py is still needed: these tests fail once Lightning needs it no longer.

Then the trick goes, and its test with it. That nothing else uses Lightning's insides is in test_house.py.
"""

import csv
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities import registry
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric
from torch import Tensor, nn

from conftest import Execute
from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.classifier import ImageClassifier
from glimpse.errors import Interrupted
from glimpse.lightning_compat import (
    IS_FIRST_PROCESS,
    LateCallback,
    LeanModule,
    log_faster,
    send_epoch_to_loggers,
    set_up_callbacks,
    skip_empty_hooks,
    skip_question_of_sigterm,
    step_context,
    stop_profiling,
)
from test_resume import SMALL, stop_at


class Batches:
    """Four batches, without a DataLoader, which would warn of its workers."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.ones(2, 3)] * len(self))

    def __len__(self) -> int:
        return 4


BATCHES = Batches()


class Tiny(pl.LightningModule):
    """It learns nothing, in one layer, and notes when its epoch ends."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.order: list[str] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).sum()
        return loss

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.layer(batch)

    def on_train_epoch_end(self) -> None:
        self.order.append("module")
        self.log("of_the_epoch", 1.0)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer_of(folder: Path, callbacks: Sequence[Callback] = (), **arguments: Any) -> pl.Trainer:
    quiet = {
        "accelerator": "cpu", "max_epochs": 1, "logger": False, "default_root_dir": folder,
        "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": None,
    }  # fmt: skip
    return pl.Trainer(callbacks=list(callbacks), **(quiet | arguments))


# skip_question_of_sigterm --------------------------------------------------------------------------


class Silent(Tiny):
    def on_train_epoch_end(self) -> None: ...


class Skipping(Callback):
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        skip_question_of_sigterm(trainer)


@pytest.mark.parametrize(("callbacks", "times"), [((), len(BATCHES)), ((Skipping(),), 0)])
def test_lightning_asks_for_sigterm_before_every_batch_of_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callbacks: Sequence[Callback], times: int
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *_, **__: asked.append(True))
    trainer_of(tmp_path, callbacks, enable_checkpointing=False).fit(Silent(), BATCHES)
    assert len(asked) == times


# LateCallback -------------------------------------------------------------------------------------


class Noting:
    """Notes when the epoch ends for it, and which metrics it sees then."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Tiny) -> None:
        pl_module.order.append(type(self).__name__)
        self.seen = set(trainer.callback_metrics)


class Plain(Noting, Callback): ...  # type: ignore[misc]


class Late(Noting, LateCallback): ...  # type: ignore[misc]


def test_a_plain_callback_comes_before_the_module_and_a_late_one_after(tmp_path: Path) -> None:
    module, plain, late = Tiny(), Plain(), Late()
    trainer_of(tmp_path, [late, plain]).fit(module, BATCHES)
    assert module.order == ["Plain", "module", "Late"]
    assert plain.seen == set()
    assert late.seen == {"of_the_epoch"}


@pytest.mark.parametrize(("callback", "num_added"), [(Callback(), 1), (LateCallback(), 0)])
def test_lightning_adds_its_checkpoint_where_there_is_none(
    tmp_path: Path, callback: Callback, num_added: int
) -> None:
    callbacks = trainer_of(tmp_path, [callback]).callbacks  # type: ignore[attr-defined]
    assert sum(isinstance(c, ModelCheckpoint) for c in callbacks) == num_added
    assert any(isinstance(c, Checkpoint) for c in callbacks)


# LeanModule and skip_empty_hooks ------------------------------------------------------------------


def test_lightning_notes_a_hook_many_times_a_step(tmp_path: Path) -> None:
    noted: list[Any] = []

    class Watched(Tiny):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "_current_fx_name":
                noted.append(value)
            super().__setattr__(name, value)

    class Between(LateCallback):
        """Marks each step's end in what was noted."""

        def on_train_batch_end(self, *_: Any) -> None:
            noted.append("step")

    trainer_of(tmp_path, [Between()]).fit(Watched(), BATCHES)
    ends = [i for i, value in enumerate(noted) if value == "step"]
    assert len(ends) == len(BATCHES)
    assert ends[2] - ends[1] > 10


def test_torch_looks_through_a_module_and_a_lean_one_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(nn.Module, "__setattr__", lambda self, name, value: asked.append(name))
    for module in (pl.LightningModule.__new__(pl.LightningModule), LeanModule.__new__(LeanModule)):
        module._current_fx_name = "on_train_batch_end"
    assert asked == ["_current_fx_name"]


class Empty(LateCallback):
    """It leaves every hook as it is."""


@pytest.mark.parametrize("owner", ["Empty", "Tiny"])
def test_an_empty_hook_is_wrapped_at_every_step_unless_it_is_none(
    tmp_path: Path, owner: str
) -> None:
    durations: list[dict[str, list[float]]] = []
    for skipped in (False, True):
        module, callback, profiler = Tiny(), Empty(), SimpleProfiler()
        if skipped:
            skip_empty_hooks(module if owner == "Tiny" else callback)
        trainer_of(tmp_path, [callback], profiler=profiler).fit(module, BATCHES)
        durations.append(profiler.recorded_durations)
    of_the_end = [
        [len(times) for name, times in found.items() if owner in name and name.endswith("on_train_batch_end")]
        for found in durations
    ]  # fmt: skip
    assert of_the_end == [[len(BATCHES)], []]


@pytest.mark.parametrize(("skipped", "times"), [(False, [len(BATCHES)]), (True, [])])
def test_an_empty_hook_of_evaluation_is_wrapped_too(
    tmp_path: Path, skipped: bool, times: list[int]
) -> None:
    callback, profiler = Empty(), SimpleProfiler()
    if skipped:
        skip_empty_hooks(callback)
    trainer_of(tmp_path, [callback], profiler=profiler).test(Tiny(), BATCHES, verbose=False)
    found = profiler.recorded_durations.items()
    of_the_end = [v for name, v in found if "Empty" in name and name.endswith("on_test_batch_end")]
    assert [len(durations) for durations in of_the_end] == times


# log_faster ---------------------------------------------------------------------------------------


def test_a_logged_metric_is_moved_and_copied_unless_it_is_there_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_faster()
    lightnings = _ResultMetric.to.__wrapped__  # type: ignore[attr-defined]
    kept: list[bool] = []
    for move in (lightnings, _ResultMetric.to):
        metric = _ResultMetric(_Metadata("training_step", "loss"), is_tensor=True)
        before = metric.meta
        assert move(metric, torch.device("cpu")) is metric
        kept.append(metric.meta is before)
    assert kept == [False, True]
    assert _ResultMetric.to(metric, torch.device("meta")).value.device.type == "meta"


def test_every_trainer_searches_the_packages_for_callbacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_faster()
    asked: list[str] = []
    lightnings = registry.entry_points.__wrapped__  # type: ignore[attr-defined]

    def note(*, group: str) -> Any:
        asked.append(group)
        return lightnings(group=group)

    monkeypatch.setattr(_ResultMetric, "to", _ResultMetric.to)  # restored after the test
    monkeypatch.setattr(registry, "entry_points", note)
    for _ in range(2):
        trainer_of(tmp_path)
    num_lightnings = len(asked)
    log_faster()
    for _ in range(2):
        trainer_of(tmp_path)
    assert (num_lightnings, len(asked) - num_lightnings) == (2, 1)


# run_stopped_validation ---------------------------------------------------------------------------


def validated_epochs(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file) if row["val/acc"]]


def without_the_reset(trainer: pl.Trainer) -> None:
    validation = trainer.fit_loop.epoch_loop.val_loop
    validation.restarting = False
    trainer.validating = True
    validation.run()
    trainer.training = True


@pytest.mark.parametrize(
    ("instead", "validated"),
    [(lambda trainer: None, ["1", "3"]), (without_the_reset, ["1", "2"])],
    ids=["nothing", "no reset"],
)
def test_lightning_leaves_a_stopped_validation_out(
    execute: Execute,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: Any,
    validated: list[str],
) -> None:
    monkeypatch.setattr("glimpse.callbacks.stop_on_signal.run_stopped_validation", instead)
    folder, options = tmp_path / "stopped", (*SMALL, "test=false")
    with monkeypatch.context() as patch:
        stop_at(patch, "on_validation_batch_end", 1, 1)
        with pytest.raises(Interrupted):
            execute(*options, folder=folder)
    execute(*options, f"resume={folder}", folder=folder)
    assert validated_epochs(folder) == validated


# validates_next -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [True, False])
def test_lightning_leaves_out_a_validation_that_a_checkpoint_was_saved_before(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    validated: list[int] = []
    finish = ImageClassifier.on_validation_epoch_end

    def noted(self: ImageClassifier) -> None:
        validated.append(self.trainer.global_step)
        finish(self)

    monkeypatch.setattr(ImageClassifier, "on_validation_epoch_end", noted)
    if not asked:
        no = "glimpse.callbacks.stop_on_signal.validates_next"
        monkeypatch.setattr(no, lambda trainer: False)
    folder = tmp_path / "stopped"
    options = (*SMALL, "test=false", "trainer.val_check_interval=3", "trainer.max_epochs=1")
    with monkeypatch.context() as patch:
        stop_at(patch, "on_train_batch_end", 0, 2)
        with pytest.raises(Interrupted):
            execute(*options, folder=folder)
    execute(*options, f"resume={folder}", folder=folder)
    assert validated == ([3, 6] if asked else [6])


# begin_next_epoch ---------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [True, False])
def test_lightning_ends_an_epoch_twice_where_the_steps_are_limited(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    options = (*SMALL, "test=false", "trainer.max_steps=9", "trainer.accumulate_grad_batches=3")
    unbroken, stopped = execute(*options, folder=tmp_path / "unbroken"), tmp_path / "stopped"
    if not begun:
        monkeypatch.setattr("glimpse.callbacks.run_state.begin_next_epoch", lambda trainer: None)
    save_last = Checkpoints.save_last

    def save_and_stop(self: Checkpoints, trainer: pl.Trainer) -> None:
        save_last(self, trainer)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save_last", save_and_stop)
        with pytest.raises(Interrupted):
            execute(*options, folder=stopped)
    execute(*options, f"resume={stopped}", folder=stopped)
    rows = [
        [line.split(",")[:6] for line in (folder / "metrics.csv").read_text().splitlines()]
        for folder in (unbroken, stopped)
    ]
    assert (rows[0] == rows[1]) == begun


# send_epoch_to_loggers ----------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [True, False])
def test_lightning_tells_loggers_after_the_epochs_checkpoint(tmp_path: Path, sent: bool) -> None:
    logger, told = CSVLogger(tmp_path), []
    table = Path(logger.log_dir) / "metrics.csv"
    lines = ["epoch,of_the_epoch,step", "0,1.0,3"]

    class Saving(LateCallback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if sent:
                send_epoch_to_loggers(trainer)
            told.extend(table.read_text().splitlines() if table.exists() else [])

    trainer_of(tmp_path, [Saving()], logger=logger, log_every_n_steps=1).fit(Tiny(), BATCHES)
    assert told == (lines if sent else [])
    assert table.read_text().splitlines() == lines  # once


# set_up_callbacks and stop_profiling --------------------------------------------------------------


def test_before_a_fit_callbacks_find_no_data(tmp_path: Path) -> None:
    found: list[Any] = []

    class Asking(LateCallback):
        def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
            found.append(getattr(trainer, "datamodule", None))

    trainer, data = trainer_of(tmp_path, [Asking()]), pl.LightningDataModule()
    assert getattr(trainer, "datamodule", None) is None
    assert found == []
    set_up_callbacks(trainer, Tiny(), data)
    assert found == [data]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_test_writes_a_profile_of_its_own(tmp_path: Path, stopped: bool) -> None:
    profiler = SimpleProfiler(dirpath=tmp_path, filename="profile")
    trainer = trainer_of(tmp_path, [LateCallback()], profiler=profiler)
    trainer.fit(Tiny(), BATCHES)
    if stopped:
        stop_profiling(trainer)
    trainer.test(Tiny(), BATCHES, verbose=False)
    written = {path.name for path in tmp_path.glob("*profile*")}
    assert written == {"fit-profile.txt"} | (set() if stopped else {"test-profile.txt"})


# settle and IS_FIRST_PROCESS ----------------------------------------------------------------------


FRESH = """
import os
import lightning.pytorch
print(os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"])
from glimpse.lightning_compat import IS_FIRST_PROCESS, settle
settle("cpu")
print(os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"])
print(IS_FIRST_PROCESS)
"""


def test_a_step_in_plain_fp32_enters_contexts_that_do_nothing() -> None:
    plain, mixed = (pl.Trainer(accelerator="cpu", precision=p) for p in ("32-true", "bf16-mixed"))
    lightnings = plain.precision_plugin.train_step_context()
    assert not isinstance(lightnings, nullcontext)
    assert isinstance(plain.precision_plugin.forward_context(), nullcontext)
    assert isinstance(step_context(plain), nullcontext)
    with step_context(mixed):
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.slow
def test_what_lightnings_import_does() -> None:
    """It makes torch look for a GPU by loading NVML, and it knows the rank before there is a trainer."""
    unset = {n: v for n, v in os.environ.items() if n != "PYTORCH_NVML_BASED_CUDA_CHECK"}
    second = unset | {"LOCAL_RANK": "1"}  # as Lightning's launcher starts the second process
    result = subprocess.run(
        [sys.executable, "-c", FRESH], env=second, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["1", "0", "False"]
    assert IS_FIRST_PROCESS


def test_an_installed_srun_is_no_reason_to_warn(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    execute(
        "data=synthetic", "data.num_train=32", "data.num_val=16", "model=linear", "trainer=cpu",
        "trainer.max_epochs=1", "logger=none", "test=false",
    )  # fmt: skip


@pytest.fixture
def talkative() -> Iterator[list[str]]:
    """What Lightning logs at level INFO, which an earlier run of this process has silenced."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger, ear = logging.getLogger("lightning.pytorch"), Ear()
    level = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    yield heard
    logger.setLevel(level)
    logger.removeHandler(ear)


def test_a_trainer_tells_what_hardware_there_is(tmp_path: Path, talkative: list[str]) -> None:
    trainer_of(tmp_path, [LateCallback()])
    assert any("GPU available" in message for message in talkative)


def warned(folder: Path, text: str) -> bool:
    """Whether a fit gives this warning."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        trainer_of(folder, [LateCallback()]).fit(Tiny(), BATCHES)
    return any(text in str(warning.message) for warning in found)


def test_a_fit_calls_what_torch_has_renamed(tmp_path: Path) -> None:
    assert warned(tmp_path, "LeafSpec")


def test_lightning_wants_a_number_that_is_reduced_to_be_reduced_again(tmp_path: Path) -> None:
    """A group of one process is enough for its warning."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert warned(tmp_path, "sync_dist=True")
    finally:
        torch.distributed.destroy_process_group()
