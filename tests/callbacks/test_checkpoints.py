"""Which checkpoints stay, by which metric, and when."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Execute
from folders import read_rows, read_summary
from glimpse.callbacks.checkpoints import Checkpoints, to_resume_from
from glimpse.checkpoint_file import AtomicCheckpointIO
from glimpse.monitor import Monitor, monitor_of

SMALL = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=60", "data.num_val=40",
    "data.batch_size=16", "model=linear", "trainer=cpu", "logger=none", "optimizer.lr=0.02",
    "trainer.max_epochs=5",
)  # fmt: skip


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ([{"val/acc": 0.5, "val/loss": 1.0}, {"val/acc": 0.5, "val/loss": 0.9}], 1),
        ([{"val/acc": 0.6, "val/loss": 1.0}, {"val/acc": 0.5, "val/loss": 0.9}], 0),
        ([{"val/acc": 0.5, "val/loss": 1.0}, {"val/acc": 0.5, "val/loss": 1.0}], 0),
        ([{"val/loss": 2.0}, {"val/acc": 0.1, "val/loss": 3.0}], 1),  # undefined in the first
    ],
)
def test_ties_go_to_the_lower_loss_then_to_the_earlier(
    metrics: list[dict[str, float]], best: int
) -> None:
    ranks = [monitor_of({}).rank(found) for found in metrics]
    defined = [(rank, -number) for number, rank in enumerate(ranks) if rank is not None]
    assert -max(defined)[1] == best


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val/loss", "min"), ("val/acc", "max"), ("val/f1", "max"), ("val/calibration", "min"),
        ("val/mean_absolute_error", "min"), ("train/loss", "min"), ("val/auroc", "max"),
        ("val/Brier", "min"), ("val/top5", "max"),
    ],
)  # fmt: skip
def test_the_mode_follows_from_the_name(name: str, mode: str) -> None:
    assert monitor_of({"monitor": name}) == Monitor(name, mode)
    other = {"min": "max", "max": "min"}[mode]
    assert monitor_of({"monitor": name, "mode": other}).mode == other


@pytest.mark.parametrize("monitor", ["val/loss", "train/loss"])
def test_the_monitor_chooses_and_is_what_a_run_returns(
    execute: Execute, monitor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Checkpoints] = []
    save_last = Checkpoints.save_last

    def note(self: Checkpoints, trainer: Any) -> None:
        kept.append(self)
        save_last(self, trainer)

    monkeypatch.setattr(Checkpoints, "save_last", note)
    folder = execute(*SMALL, f"monitor={monitor}")
    values = [float(row[monitor]) for row in read_rows(folder)]
    assert read_summary(folder)["best_epoch"] == values.index(min(values)) + 1
    assert kept[-1].best_value == pytest.approx(min(values))


def test_the_three_best_stay(execute: Execute) -> None:
    folder = execute(*SMALL, "monitor=val/loss", "mode=max", "checkpoints.top_k=3")
    losses = {int(row["epoch"]): float(row["val/loss"]) for row in read_rows(folder)}
    best = sorted(losses, key=lambda epoch: -losses[epoch])[:3]
    found = {path.name for path in (folder / "checkpoints").iterdir()}
    assert found == {f"epoch-{e}_step-{4 * e}.ckpt" for e in best} | {"best.ckpt", "last.ckpt"}
    weights = [
        torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
        for name in ("best.ckpt", f"epoch-{best[0]}_step-{4 * best[0]}.ckpt")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_stranger_s_checkpoint_names_no_file_to_remove(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", top_k=2)
    mine = {"epoch-1_step-4.ckpt": [0.5, -1.0]}
    kept = mine | {"../../victim": [-1.0, -9.0], str(victim): [-1.0, -9.0]}
    checkpoints.load_state_dict(checkpoints.state_dict() | {"kept": kept})
    assert checkpoints.state_dict()["kept"].keys() == mine.keys()
    other = tmp_path / "best.ckpt"
    other.write_text("of another run")
    for path in (victim, tmp_path / "run" / ".." / "best.ckpt"):
        AtomicCheckpointIO().remove_checkpoint(path)  # as Lightning's ModelCheckpoint would
    assert victim.exists()
    assert other.exists()


def test_of_the_intact_checkpoints_the_one_with_the_most_steps_counts(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    run = execute(*SMALL, "monitor=train/loss", "checkpoints.top_k=2")
    folder = run / "checkpoints"
    early, late = sorted(folder.glob("epoch-*.ckpt"), key=lambda path: path.name)
    assert (folder / "best.ckpt").read_bytes() == late.read_bytes()
    (folder / "best.ckpt").unlink()
    os.utime(early, (2e9, 2e9))  # the clock was set back in between
    found = to_resume_from(run)
    assert found is not None
    assert found[0].name == "last.ckpt"
    (folder / "last.ckpt").write_bytes(b"damaged")
    found = to_resume_from(run)
    assert found is not None
    assert found[0] == late
    assert f"damaged; resuming from {late.name}" in capsys.readouterr().out


def test_a_resumed_run_goes_on_with_the_best_it_had(execute: Execute, tmp_path: Path) -> None:
    options = (*SMALL, "checkpoints.top_k=2", "metrics=[f1]", "monitor=val/f1")
    whole = execute(*options, folder=tmp_path / "whole")
    parts = execute(*options, "trainer.max_epochs=2", "scheduler=constant", folder=tmp_path / "a")
    execute(*options, "scheduler=constant", f"resume={parts}", folder=parts)
    again = execute(*options, "scheduler=constant", folder=tmp_path / "b")
    names = [{p.name for p in (f / "checkpoints").iterdir()} for f in (parts, again)]
    assert names[0] == names[1]
    assert read_summary(parts)["best_epoch"] == read_summary(again)["best_epoch"]
    assert read_rows(parts)[-1]["val/f1"] == read_rows(again)[-1]["val/f1"]
    assert len(read_rows(whole)) == 5


def test_a_resume_with_another_monitor_judges_the_best_anew(execute: Execute) -> None:
    folder = execute(*SMALL, "trainer.max_epochs=2")
    more = (*SMALL, "monitor=val/f1", "metrics=[f1]", "trainer.max_epochs=4")
    execute(*more, f"resume={folder}", folder=folder)
    found = read_summary(folder)
    late = [float(row["val/f1"]) for row in read_rows(folder) if row["val/f1"]]
    assert len(late) == 2
    assert found["best_epoch"] == 3 + late.index(max(late))
    assert found["metrics"]["val/f1"] == max(late)


def test_a_save_is_made_within_an_epoch_when_its_time_has_come(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[int, int]] = []
    save_last = Checkpoints.save_last

    def note(self: Checkpoints, trainer: Any) -> None:
        saved.append((trainer.current_epoch, trainer.global_step))
        save_last(self, trainer)
        self.saved_at -= 60  # as if a minute had passed

    monkeypatch.setattr(Checkpoints, "save_last", note)
    options = (*SMALL, "trainer.max_epochs=2", "checkpoints.every_minutes=1")
    execute(*options, "trainer.accumulate_grad_batches=2")
    # The first epoch's only save is at its end. Within an epoch, one follows each optimizer step.
    assert saved == [(0, 2), (1, 3), (1, 4)]


def test_early_stopping_follows_the_monitor(execute: Execute) -> None:
    stop = ("callbacks=[early_stopping]", "callbacks.early_stopping.patience=1")
    folder = execute(*SMALL, *stop, "monitor=val/loss", "mode=max", "trainer.max_epochs=9")
    assert read_summary(folder)["epochs"] == 2  # the loss falls, so it does not improve
    assert read_summary(folder)["best_epoch"] == 1


def test_early_stopping_waits_for_a_metric_of_training(execute: Execute) -> None:
    """Also where a validation ends before the epoch does."""
    more = ("callbacks=[early_stopping]", "monitor=train/loss", "trainer.val_check_interval=0.5")
    assert read_summary(execute(*SMALL, *more))["epochs"] == 5


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("trainer.max_steps=9",), "trainer.max_steps=12"),
        (
            ("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3"),
            "trainer.check_val_every_n_epoch=1",
        ),
        (
            ("trainer.check_val_every_n_epoch=2", "trainer.max_steps=9"),
            "trainer.max_steps=16",
        ),
        (("trainer.val_check_interval=3",), "trainer.val_check_interval=1.0"),
        (
            ("trainer.val_check_interval=0.7", "trainer.max_steps=9"),
            "trainer.val_check_interval=1.0 trainer.max_steps=12",
        ),
        (("trainer.max_steps=8",), None),
        (("trainer.max_steps=9", "trainer.limit_val_batches=0"), None),
        (("trainer.max_steps=10", "trainer.val_check_interval=2"), None),
        (("trainer.fast_dev_run=true",), None),
    ],
)
def test_last_weights_without_a_validation_are_remarked_on(
    execute: Execute,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: tuple[str, ...],
    remedy: str | None,
) -> None:
    execute(*SMALL, "trainer.max_epochs=10", *options)
    printed = capsys.readouterr().out
    found = re.search("the last weights were not validated: type (.*)", printed)
    assert (found and found[1]) == remedy
    if remedy:  # it works
        execute(*SMALL, "trainer.max_epochs=10", *options, *remedy.split(), folder=tmp_path / "b")
        assert "the last weights were not validated" not in capsys.readouterr().out


def test_the_plateau_follows_the_monitor(execute: Execute) -> None:
    options = (
        *SMALL,
        "scheduler=plateau",
        "scheduler.patience=0",
        "monitor=train/loss",
        "mode=max",
    )
    rates = [float(row["lr"]) for row in read_rows(execute(*options))]
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.0002, 0.00002])
