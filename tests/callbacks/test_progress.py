"""Where no bar can be drawn, an epoch of minutes tells how far it is; a short one is one line."""

import io
import re

import pytest
from rich.console import Console

from conftest import Execute
from folders import read_rows
from glimpse.callbacks import progress

OPTIONS = (
    "data=synthetic", "data.num_train=80", "data.num_val=16", "data.batch_size=16", "model=linear",
    "trainer=cpu", "trainer.max_epochs=2", "logger=none", "test=false",
)  # fmt: skip
LINE = r"epoch (\d)/2  batch (\d)/5  \d:\d\d left"


@pytest.mark.parametrize(
    ("seconds", "lines"),
    [
        (0.0, [(epoch, batch) for epoch in "12" for batch in "1234"]),
        (progress.LINE_SECONDS, []),
    ],
)
def test_lines_within_an_epoch(
    execute: Execute,
    one_by_one: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    lines: list[tuple[str, str]],
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", seconds)
    execute(*OPTIONS)
    output = capsys.readouterr().out
    assert re.findall(LINE, output) == lines
    assert len(re.findall(r"epoch \d/2  train loss", output)) == 2


def test_a_part_of_an_epoch_has_no_speed(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(*OPTIONS, "trainer.max_steps=8")  # of 10
    whole, part = re.findall(r"epoch \d/2  train loss.*", capsys.readouterr().out)
    assert " img/s " in whole
    assert "img/s" not in part


def lines_of(capsys: pytest.CaptureFixture[str], start: str) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(start)]


def test_a_validation_within_an_epoch_has_a_line(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two validations in an epoch, the epoch's own line shows the second."""
    folder = execute(*OPTIONS, "data.num_train=96", "trainer.val_check_interval=3", "metrics=[f1]")
    lines = lines_of(capsys, "epoch ")
    assert [re.sub(r"-?\d\.\d{4}", "#", line).split("  lr")[0] for line in lines[:2]] == [
        "epoch 1/2  step 3  val loss # acc #  f1 #  0:00 left *",
        "epoch 1/2  train loss # acc #  val loss # acc #  f1 #",
    ]
    assert lines[2].split("  ")[1] == "step 9"
    assert f"val loss {float(read_rows(folder)[0]['val/loss']):.4f}" in lines[1]


def test_a_star_marks_each_new_best(execute: Execute, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights that do not change are the best at the first validation only."""
    execute(*OPTIONS, "trainer.val_check_interval=2", "optimizer.lr=0")
    assert [line.endswith(" *") for line in lines_of(capsys, "epoch ")] == [True, *[False] * 5]


def test_a_huge_loss_is_short(execute: Execute, capsys: pytest.CaptureFixture[str]) -> None:
    execute(*OPTIONS, "trainer.max_epochs=1", "optimizer.lr=1e20", "optimizer=sgd")
    printed = lines_of(capsys, "epoch ")[-1]
    assert re.search(r"train loss \d\.\d*e\+\d\d acc ", printed)
    assert re.search(r"val loss \d\.\d*e\+\d\d acc 0\.\d{4}  ", printed)


def test_evaluations_say_how_far_they_are(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHORT_PASS", 0.0)
    execute(*OPTIONS, "data.num_val=80", "test=true")
    output = capsys.readouterr().out
    batches = [str(number) for number in range(1, 6)]
    assert re.findall(r"epoch 1/2  validating  batch (\d)/5  0:00 left", output) == batches
    assert re.findall(r"measuring train  batch (\d)/5  0:00 left", output) == batches


def test_short_evaluations_call_no_hook(execute: Execute, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first validation, which tells how long they take."""
    called: list[str] = []
    monkeypatch.setattr(
        progress.Progress, "_show_evaluation", lambda _self, what, number: called.append(what)
    )
    monkeypatch.setattr(progress, "SHORT_PASS", 1e9)
    execute(*OPTIONS, "test=true")
    assert called == ["epoch 1/2  validating"]


def test_a_terminal_shows_evaluations_in_a_bar_that_vanishes(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.0)
    monkeypatch.setattr(progress, "SHORT_PASS", 0.0)
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(progress, "console", terminal)
    execute(*OPTIONS, "data.num_val=80", "test=true")
    drawn = shown.getvalue()
    assert re.search(r"epoch 1/2  validating.*3/5.*0:00 left", drawn)
    assert re.search(r"measuring train.*3/5.*0:00 left", drawn)
    bars = drawn.split("measuring train")[-1]
    assert bars.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, and the line erased
