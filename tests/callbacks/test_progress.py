"""Where no bar can be drawn, an epoch of minutes tells how far it is; a short one is one line."""

import re

import pytest

from conftest import Execute
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
