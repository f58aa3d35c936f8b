"""The HTML pages: whole in themselves, escaped, light, with curves and pictures."""

import base64
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from folders import HEADER, write_run, write_start
from glimpse.cli.main import app
from glimpse.plots.svg import curves
from glimpse.runs import page
from glimpse.runs.folder import find_runs, read_run
from glimpse.runs.groups import group

VOID = {"meta", "img", "line", "circle", "path", "li"}


class Balanced(HTMLParser):
    """Fails where tags do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page_of(root: Path) -> str:
    return check(page.over_all(group(find_runs(root)), root))


def check(text: str) -> str:
    """Well formed, and nothing is fetched from elsewhere."""
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    assert not re.search(r"(src|href)='?(?!data:)[^ >]*", re.sub(r"src='data:[^']*'", "", text))
    return text


def draw(folder: Path, name: str) -> bytes:
    path = folder / "figures" / name
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path)
    return base64.b64encode(path.read_bytes())


def test_the_table_of_runs_is_sorted_by_buttons(tmp_path: Path) -> None:
    """The Tab key reaches a button, and screen readers say how its column is sorted."""
    write_run(tmp_path / "run")
    text = page_of(tmp_path)
    table = text.partition("<table class=sorts>")[2].partition("</table>")[0]
    assert table.count("<th") > table.count("<button type=button>") == table.count("</th>") > 5
    assert "aria-sort" in text.partition("<script>")[2]


def test_whatever_a_run_says_is_escaped(tmp_path: Path) -> None:
    config = {"data": {"root": "<script>alert(1)</script>"}}
    write_run(tmp_path / "a", config=config, status="failed", error="<b>broken</b>", metrics={})
    write_run(tmp_path / "b", data="<i>digits</i>", overrides=("x=<u>",))
    for text in (page_of(tmp_path), *(page.of_one(run) for run in find_runs(tmp_path))):
        check(text)
        assert not re.search("<(b|i|u)>|<script>alert", text)
    assert "&lt;b&gt;broken&lt;/b&gt;" in page_of(tmp_path)
    drawn = curves([{"epoch": 1.0, "val/<x' onload='alert(1)": 0.5}])
    assert "&lt;x&#x27; onload=&#x27;alert(1)" in drawn
    assert "<x" not in drawn
    assert "x'" not in drawn


def test_the_page_of_a_run_has_curves_and_every_picture(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    pictures = [draw(folder, name) for name in ("train_batch.png", "confusion.png")]
    text = check(page.of_one(read_run(folder)))
    assert all(picture.decode() in text for picture in pictures)
    assert text.count("<svg") == 2
    assert "overfitting gap: +0.1000" in text
    assert "prefers-color-scheme: dark" in text


def test_curves_show_both_splits_on_labelled_axes() -> None:
    rows = [
        {"epoch": float(e), "train/loss": 1 / e, "val/loss": 2 / e, "val/acc": 0.5}
        for e in range(1, 301)
    ]
    loss, accuracy = (f"<svg{part}" for part in curves(rows).split("<svg")[1:])
    for label in ("train", "val", "epoch", "loss", "300"):
        assert f">{label}</text>" in loss
    assert ">train</text>" not in accuracy  # there are no such numbers
    assert len(loss) < 10_000  # thinned
    assert curves([]) == ""
    assert "<circle" in curves([{"epoch": 1.0, "val/acc": 0.0}])  # one point is a point


def chart_of(*losses: float) -> str:
    """The chart of a run with these losses."""
    return curves([{"epoch": float(i), "val/loss": loss} for i, loss in enumerate(losses, 1)])


def labels_of(chart: str) -> list[str]:
    return re.findall(r"text-anchor=end>([^<]+)<", chart)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.013, 0.087, ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10"]),
        (2.30258, 2.30261, ["2.30258", "2.30259", "2.30260", "2.30261"]),
        (0.0, 1e9, ["0", "2e+08", "4e+08", "6e+08", "8e+08", "1e+09"]),
        (1e9, 1e9 + 4, ["1000000000", "1000000001", "1000000002", "1000000003", "1000000004"]),
        (1e-6, 3e-6, ["1e-06", "1.5e-06", "2e-06", "2.5e-06", "3e-06"]),
        (100.0, 500.0, ["100", "200", "300", "400", "500"]),
    ],
)
def test_ticks_are_round_and_span_the_values(low: float, high: float, labels: list[str]) -> None:
    chart = chart_of(low, high)
    assert labels_of(chart) == labels
    left = int(re.findall(r"<line class=grid x1=(\d+)", chart)[0])
    assert left >= 7 * max(map(len, labels))


@pytest.mark.parametrize(
    "losses", [(1.0, 1.0000000000000002), (0.0, 5e-324), (-1e308, 1e308), (0.5, 0.5)]
)
def test_any_numbers_have_ticks(losses: tuple[float, float]) -> None:
    labels = labels_of(chart_of(*losses))
    assert 2 <= len(set(labels)) == len(labels) < 12


def test_many_runs_make_a_light_page(tmp_path: Path) -> None:
    for i in range(60):
        folder = write_run(
            tmp_path / str(i), accuracy=i / 100, config={"optimizer": {"lr": i / 10}}
        )
        draw(folder, "train_batch.png")
    epochs = [f"{i},1,0.5,0.5,0.5,0.5,,0.1,100,1" for i in range(1, 2001)]
    (tmp_path / "59" / "metrics.csv").write_text("\n".join([HEADER, *epochs, ""]))
    write_start(tmp_path / "started")
    text = page_of(tmp_path)
    assert text.count("<details") == page.NUM_CURVES
    assert text.count("<img") == page.NUM_PICTURED
    assert f"the best {page.NUM_CURVES} of 61 groups" in text
    assert "(running)" in text.partition("</summary>")[0]  # first, whatever it has reached
    assert "<code>59</code>" in text
    assert "<code>0</code>" not in text
    assert len(text) < 500_000


def test_nothing_is_followed_out_of_a_run_folder(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"status": "TOPSECRET", "metrics": {}}')
    run = write_run(tmp_path / "runs" / "run")
    (run / "figures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (run / "figures" / "own.png").write_bytes((tmp_path / "secret.png").read_bytes())
    (run / "figures" / "link.png").symlink_to(tmp_path / "secret.png")
    (run / "report.html").symlink_to(secret)
    for name in ("environment.json", "metrics.csv", ".hydra/overrides.yaml"):
        (run / name).unlink()
        (run / name).symlink_to(secret)
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code == 0
    page = (run / "report.html").read_text()
    assert "TOPSECRET" in secret.read_text()
    assert not (run / "report.html").is_symlink()
    assert "own" in page
    assert "alt='link'" not in page
    (run / "summary.json").unlink()
    (run / "summary.json").symlink_to(secret)
    result = CliRunner().invoke(app, ["report", str(tmp_path / "runs")])
    assert result.exit_code == 0
    assert "TOPSECRET" not in result.output
    assert "summary.json cannot be read: it is a link that leads out of the folder" in " ".join(
        result.output.split()
    )


def test_a_pipe_in_a_run_folder_is_not_waited_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")
    (run / "figures").mkdir()
    os.mkfifo(run / "figures" / "z.png")
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code == 0
