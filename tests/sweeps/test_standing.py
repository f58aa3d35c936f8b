"""The time left of a sweep: a line that stays on a terminal, lines now and then elsewhere."""

import itertools
from collections.abc import Callable
from contextlib import closing

import pytest

from glimpse.sweeps import standing
from glimpse.sweeps.standing import Standing


@pytest.fixture
def left() -> Callable[[], str]:
    number = itertools.count(9, -1)
    return lambda: f"{next(number)} jobs left"


def test_on_a_terminal_one_line_stays_below_what_is_printed(
    left: Callable[[], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr(standing, "REDRAW_SECONDS", 0.0)
    with closing(Standing(left, is_free=True)) as line:
        line.show()
        print("job 1 of 9 finished")
        line.show()
    printed = capsys.readouterr().out
    parts = [printed.index(text) for text in ("9 jobs left", "job 1 of 9", "8 jobs left")]
    assert parts == sorted(parts)
    assert printed.rpartition("8 jobs left")[2].count("\x1b[2K") > 0  # and is gone at the end


@pytest.mark.parametrize(("terminal", "is_free"), [("0", True), ("1", False)])
def test_elsewhere_a_line_is_printed_when_it_is_due(
    terminal: str,
    is_free: bool,
    left: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    with closing(Standing(left, is_free=is_free)) as line:
        line.show()
        assert capsys.readouterr().out == ""
    monkeypatch.setattr(standing, "LINE_SECONDS", 0.0)
    with closing(Standing(left, is_free=is_free)) as line:
        line.show()
        assert capsys.readouterr().out == "9 jobs left\n"
