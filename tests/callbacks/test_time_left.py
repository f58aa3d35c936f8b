"""The time left follows from what the remaining epochs cost, and from every limit of a training."""

from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import Timer

from conftest import Execute
from glimpse.callbacks import progress, time_left
from glimpse.callbacks.time_left import TimeLeft

BATCHES = 10  # an epoch


class Half:
    """The first two epochs cost half."""

    def relative_cost(self, epoch: int) -> float:
        return 0.5 if epoch < 2 else 1.0


def trainer(*callbacks: object, max_epochs: int = 4, max_steps: int = -1, **more: Any) -> Any:
    return SimpleNamespace(
        callbacks=callbacks,
        current_epoch=0,
        num_training_batches=BATCHES,
        max_epochs=max_epochs,
        max_steps=max_steps,
        accumulate_grad_batches=more.get("together", 1),
    )


def left(
    training: Any, *, begin: int = 0, epoch: int, batches: int, seconds: float
) -> float | None:
    """The time left after so many seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_left.time, "perf_counter", lambda: 100.0)
        clock = TimeLeft(training, begin)
        training.current_epoch = epoch
        patch.setattr(time_left.time, "perf_counter", lambda: 100.0 + seconds)
        return clock.seconds(batches)


def cost_left(clock: TimeLeft, num_batches_done: int) -> float:
    """The time left where a step at full size takes a second."""
    [end] = clock._ends()
    return clock._cost_until(*end) - clock._cost_until(
        clock._trainer.current_epoch, num_batches_done
    )


def test_even_epochs_go_on_at_the_pace_so_far() -> None:
    assert left(trainer(), epoch=1, batches=0, seconds=20) == pytest.approx(60)
    assert left(trainer(), epoch=0, batches=5, seconds=10) == pytest.approx(70)
    assert left(trainer(), epoch=0, batches=0, seconds=1) is None


def test_dearer_epochs_take_longer() -> None:
    # Two epochs at half the cost took 20 s; two whole ones are left.
    assert left(trainer(Half()), epoch=2, batches=0, seconds=20) == pytest.approx(40)


def test_validation_takes_as_long_beside_cheap_epochs_as_beside_dear_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 10.0, 16.0, 16.0])  # a cheap epoch takes 10 s, its validation 6 s
    monkeypatch.setattr(time_left.time, "perf_counter", lambda: next(times))
    training = trainer(Half(), max_epochs=4)
    clock = TimeLeft(training, 0)
    clock.begin_validation()
    clock.end_validation()
    assert clock.seconds(BATCHES) == pytest.approx(10 + 20 + 20 + 3 * 6)


def test_a_resumed_epoch_counts_from_where_it_was_resumed() -> None:
    assert left(trainer(), begin=5, epoch=0, batches=10, seconds=10) == pytest.approx(60)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"max_steps": 15}, 10),  # before the epochs end
        ({"max_steps": 400}, 60),  # after them
        ({"max_steps": 15, "max_epochs": -1}, 10),
        ({"max_epochs": -1}, None),
        ({"max_steps": 5, "together": 4}, 16),  # 3 steps an epoch: one epoch and 8 batches
    ],
)
def test_the_first_limit_counts(limits: dict[str, int], seconds: float | None) -> None:
    assert left(trainer(**limits), epoch=1, batches=0, seconds=20) == seconds


def test_the_time_that_a_run_may_take_is_a_limit() -> None:
    timer = Timer({"seconds": 30})
    assert left(trainer(timer), epoch=1, batches=0, seconds=20) == pytest.approx(30, abs=1)


def test_small_images_do_not_promise_an_early_end(
    execute: Execute,
    one_by_one: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[float] = []
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(TimeLeft, "seconds", cost_left)
    monkeypatch.setattr(progress, "duration", lambda seconds: str(told.append(seconds)))
    monkeypatch.setattr(progress.Progress, "_show_evaluation", lambda *_: None)
    execute(
        "data=synthetic", "data.shape=[1,16,16]", "data.num_train=80", "data.num_val=16",
        "data.batch_size=16", "model=convnet_bn", "model.widths=[8]", "trainer=cpu",
        "trainer.max_epochs=2", "logger=none", "test=false", "callbacks=[progressive_sizes]",
        "callbacks.progressive_sizes.fractions=[0.5,1]", "callbacks.progressive_sizes.until=[0.5]",
    )  # fmt: skip
    small = [5 + 5 * 0.25 - 0.25 * n for n in range(1, 6)]
    assert told == pytest.approx([*small, 4, 3, 2, 1, 0])
