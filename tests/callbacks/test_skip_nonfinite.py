"""`on_nonfinite=skip`: a step that is not finite changes nothing, and is counted."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Execute
from glimpse.callbacks.ema import WeightAverage
from glimpse.classifier import ImageClassifier
from glimpse.data.loader import Batch
from glimpse.errors import DivergedError, Interrupted, UserError
from test_resume import assert_same, stop_at

SMALL = (
    "data=synthetic", "data.shape=[1,12,12]", "data.num_train=96", "data.num_val=32",
    "data.batch_size=16", "model=convnet_bn", "model.widths=[4]", "model.hidden=8", "trainer=cpu",
    "trainer.max_epochs=2", "logger=none", "test=false", "on_nonfinite=skip",
)  # fmt: skip


def spoil(monkeypatch: pytest.MonkeyPatch, how: str, *places: tuple[int, int]) -> None:
    """Make the loss, or only its gradient, NaN in these batches (epoch, index)."""
    original = ImageClassifier.training_step

    def spoiled(self: ImageClassifier, batch: Batch, batch_idx: int) -> Tensor:
        loss = original(self, batch, batch_idx)
        if (self.current_epoch, batch_idx) in places:
            if how == "loss":
                self.counts.add(
                    "train", loss.detach() * torch.nan, torch.zeros(1, 10), torch.zeros(1).long(),
                    divisor=1,
                )  # fmt: skip
                return loss + torch.inf
            loss.register_hook(lambda gradient: gradient * torch.nan)
        return loss

    monkeypatch.setattr(ImageClassifier, "training_step", spoiled)


def watch(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Copies of everything that a step changes, from before the first batch and after each one."""
    seen: list[dict[str, Any]] = []
    on_start, on_end = WeightAverage.on_train_batch_start, WeightAverage.on_train_batch_end

    def note(average: WeightAverage, classifier: ImageClassifier) -> None:
        optimizer = classifier.trainer.optimizers[0].state_dict()["state"]
        seen.append(
            {
                "network": [t.clone() for t in classifier.state_dict().values()],
                "average": [t.clone() for t in average._average.values()],
                "optimizer": [t.clone() for s in optimizer.values() for t in s.values()],
            }
        )

    def before(self: WeightAverage, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        on_start(self, trainer, module, batch, batch_idx)
        if not seen:
            note(self, module)

    def after(self: WeightAverage, trainer: Any, module: Any, *arguments: Any) -> None:
        on_end(self, trainer, module, *arguments)
        note(self, module)

    monkeypatch.setattr(WeightAverage, "on_train_batch_start", before)
    monkeypatch.setattr(WeightAverage, "on_train_batch_end", after)
    return seen


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        len(one[name]) == len(other[name])
        and all(torch.equal(a, b) for a, b in zip(one[name], other[name], strict=True))
        for name in one
    )


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_a_skipped_step_changes_nothing(
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
    optimizer: str,
) -> None:
    spoil(monkeypatch, how, (0, 2), (1, 0))
    seen = watch(monkeypatch)
    more = (
        ("callbacks=[ema]", "optimizer.momentum=0.9")
        if optimizer == "sgd"
        else ("callbacks=[ema]",)
    )
    folder = execute(*SMALL, f"optimizer={optimizer}", *more)
    same = [equal(one, other) for one, other in itertools.pairwise(seen)]
    assert [number for number, one in enumerate(same) if one] == [2, 6]
    assert all(t.isfinite().all() for state in seen for group in state.values() for t in group)
    assert json.loads((folder / "summary.json").read_text())["skipped_steps"] == 2
    printed = capsys.readouterr().out
    what = "the loss" if how == "loss" else "the gradient of"
    assert f"epoch 1, batch 3: {what}" in printed
    assert "skipped this step, 2 of at most 10" in printed


def test_all_batches_of_a_step_are_left_out(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "loss", (0, 3))
    seen = watch(monkeypatch)
    folder = execute(*SMALL, "callbacks=[ema]", "trainer.accumulate_grad_batches=3")
    assert equal(seen[3], seen[6])
    assert not equal(seen[0], seen[3])
    assert json.loads((folder / "summary.json").read_text())["skipped_steps"] == 1


def test_finite_steps_keep_their_bits(execute: Execute, tmp_path: Path) -> None:
    skips = execute(*SMALL, folder=tmp_path / "skips")
    stops = execute(*SMALL, "on_nonfinite=stop", folder=tmp_path / "stops")
    assert_same(skips, stops)


def test_one_more_than_allowed_stops_the_run(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "gradient", (0, 0), (0, 1), (0, 3))
    with pytest.raises(DivergedError, match=r"batch 4: the gradient of .* after 2 skipped steps"):
        execute(*SMALL, "max_nonfinite_steps=2")


def test_an_epoch_without_a_finite_step_stops_the_run(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "loss", *((0, number) for number in range(6)))
    with pytest.raises(DivergedError, match="no step of epoch 1 was finite"):
        execute(*SMALL)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_count_goes_on_after_a_resume(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """With three batches a step, the run is stopped between them, in a validation."""
    spoil(monkeypatch, "loss", (0, 1), (1, 1), (1, 8))
    options = (
        *SMALL, "callbacks=[ema]", f"trainer.accumulate_grad_batches={accumulate}",
        "data.num_train=144", "trainer.val_check_interval=2", "max_nonfinite_steps=3",
    )  # fmt: skip
    unbroken = execute(*options, folder=tmp_path / "unbroken")
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, "on_validation_batch_end", 1, 0)
        with pytest.raises(Interrupted):
            execute(*options, folder=stopped)
    execute(*options, f"resume={stopped}", folder=stopped)
    assert_same(unbroken, stopped)
    assert json.loads((stopped / "summary.json").read_text())["skipped_steps"] == 3
    spoil(monkeypatch, "loss", (2, 0))
    with pytest.raises(DivergedError, match="after 3 skipped"):
        execute(*options, "trainer.max_epochs=3", f"resume={stopped}", folder=stopped)


def test_other_words_are_refused(execute: Execute) -> None:
    with pytest.raises(UserError, match="expected one of stop, skip"):
        execute(*SMALL, "on_nonfinite=ignore")
