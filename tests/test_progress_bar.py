"""A long pass says how far it is: in a file by lines, on a terminal by a bar."""

import re
import sys
from pathlib import Path

import pytest

from conftest import slow
from glimpse import load, progress_bar
from glimpse.data.processes import each_chunk
from glimpse.progress_bar import tracked


class Clock:
    """A clock that goes on by ten seconds whenever somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 10
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress_bar, "time", found)
    return found


def test_a_file_gets_a_line_per_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(range(13), "decoding", 13_000, unit="image", size=lambda _: 1000))
    assert capsys.readouterr().err.splitlines() == [
        "decoding: 6,000 of 13,000 images, 1:10 left",
        "decoding: 12,000 of 13,000 images, 0:10 left",
    ]


@pytest.mark.parametrize(
    ("total", "unit", "line"),
    [
        (None, "file", "checking: 12 files"),
        (1, "image", "checking: 12 of 1 image"),
        (0, "B", "checking: 12 MB"),
        (24_000_000, "B", "checking: 12 of 24 MB, 1:00 left"),
    ],
)
def test_a_total_that_is_unknown_or_wrong(
    clock: Clock, capsys: pytest.CaptureFixture[str], total: int | None, unit: str, line: str
) -> None:
    bar = progress_bar.progress_bar("checking", total, unit=unit)
    for _ in range(6):
        bar.update(2_000_000 if unit == "B" else 2)
    assert capsys.readouterr().err.splitlines() == [line]


def test_short_passes_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    list(tracked(range(1000), "decoding", 1000, unit="image"))
    assert capsys.readouterr() == ("", "")


def lengths(paths: list[Path], _start: int) -> int:
    return len(paths)


@pytest.mark.parametrize("num_workers", [1, slow(2)])
def test_decoding_does(clock: Clock, capsys: pytest.CaptureFixture[str], num_workers: int) -> None:
    paths = [Path(str(number)) for number in range(6000)]
    assert sum(each_chunk(lengths, paths, num_workers=num_workers, what="decoding")) == 6000
    found = re.findall(
        r"^decoding: [\d,]+ of 6,000 images, \d+:\d\d left$", capsys.readouterr().err, re.M
    )
    assert len(found) >= 1


def test_predicting_a_split_does(
    trained_run: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(trained_run, overrides=["data.batch_size=32"]).predict("val")
    assert "predicting val: 192 of 360 images, 0:52 left\n" in capsys.readouterr().err


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], vanishes: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(tracked(range(3), "decoding", 3, unit="image", vanishes=vanishes))
    assert ("decoding: 100%" in capsys.readouterr().err) != vanishes
