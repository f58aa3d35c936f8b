"""The speed of an epoch, in the file of epochs."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glimpse.callbacks import epoch_record
from glimpse.callbacks.epoch_record import EpochRecord


def test_a_validation_before_the_first_batch_takes_none_of_the_epochs_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As after a resume of a run that was stopped in a validation within an epoch."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(epoch_record, "_images_so_far", lambda _: 0)
    device = SimpleNamespace(root_device=SimpleNamespace(type="cpu"))
    trainer: Any = SimpleNamespace(world_size=1, is_last_batch=True, strategy=device)
    record, module = EpochRecord(tmp_path, ["val/acc"]), Any

    def validate() -> None:
        record.on_validation_start(trainer, module)  # type: ignore[arg-type]
        now[0] += 3
        record.on_validation_end(trainer, module)  # type: ignore[arg-type]

    validate()
    record.on_train_batch_start(trainer, module, None, 0)  # type: ignore[arg-type]
    now[0] += 1
    validate()
    now[0] += 1
    record.on_train_batch_end(trainer, module)  # type: ignore[arg-type]
    assert record._duration == 2
