"""Files of a run folder that are no files, or hold something else: one error, and nobody waits."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import REPOSITORY
from folders import write_run
from glimpse import records
from glimpse.cli.main import app
from glimpse.records import UnreadableError, parse_yaml, read_json, read_rows, read_text
from glimpse.runs.folder import find_runs, pictures_of, read_run


def pipe(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have a hundred bytes
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("this user may not make devices")


def folder(path: Path) -> None:
    path.mkdir()


def link_out(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


KINDS = (pipe, socket_file, device, folder, link_out, link_to_nowhere, link_to_itself)


@pytest.mark.parametrize("make", KINDS)
def test_what_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.json")
    with pytest.raises(UnreadableError, match=r"x\.json cannot be read: "):
        read_text(tmp_path, "x.json")


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv", "environment.json"])
@pytest.mark.parametrize("make", KINDS)
def test_no_such_file_hides_another_run(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    bad, good = write_run(tmp_path / "bad"), write_run(tmp_path / "good", accuracy=0.75)
    (bad / name).unlink()
    make(bad / name)
    for odd in ("report.html", "figures/z.png"):
        (bad / odd).parent.mkdir(exist_ok=True)
        make(bad / odd)
    assert pictures_of(bad) == []
    found = {run.folder: run.status for run in find_runs(tmp_path)}
    assert found == {bad: "unreadable" if name == "summary.json" else "finished", good: "finished"}
    result = CliRunner().invoke(app, ["report", str(bad)])
    if make is folder:
        assert result.exit_code == 1
        assert f"cannot write {bad / 'report.html'}" in result.stderr
    else:
        assert result.exit_code == 0, result.output
        assert stat.S_ISREG((bad / "report.html").lstat().st_mode)


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(2**40)  # takes no space
    with pytest.raises(UnreadableError, match="larger than"):
        read_json(tmp_path, "x.json")
    monkeypatch.setattr(records, "MOST_ROWS", 5)
    (tmp_path / "x.csv").write_text("epoch\n" + "1\n" * 6)
    with pytest.raises(UnreadableError, match="more than 5 rows"):
        read_rows(tmp_path, "x.csv")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": [' + "[" * 500 + "]" * 500 + "]}", "nested deeper than 40"),
        ("[1]", "expected a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_json_that_is_not_ours(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UnreadableError, match=cause):
        read_json(tmp_path, "x.json")


def test_numbers_of_any_length_are_numbers(tmp_path: Path) -> None:
    nines = "9" * 400
    (tmp_path / "x.json").write_text(f'{{"a": {nines}, "b": {"9" * 9000}, "c": NaN, "d": 7}}')
    found = read_json(tmp_path, "x.json")
    assert found["d"] == 7
    assert [records.finite(found[key]) for key in "abc"] == [None] * 3
    run = write_run(tmp_path / "run", accuracy=0.5)
    summary = (run / "summary.json").read_text().replace("650", nines)
    (run / "summary.json").write_text(summary)
    assert read_run(run).number("parameters") is None
    assert read_run(run).accuracy == 0.5


BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (BOMB, "alias"),
        ("a: &a [*a]", "alias"),
        ("a: &a {k: v}\nb: {<<: [*a, *a]}", "alias"),
        ("- " * 50_000, "nested deeper"),  # ends a process that gives it to a C loader
        ("a: 0x" + "f" * 5000, "too large"),
        ("a: " + "9" * 5000, "not YAML"),
        ('a: !!int ""', "not YAML"),
        ("!!python/object/apply:os.system [true]", "not YAML"),
    ],
)
def test_yaml_that_is_not_ours(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        parse_yaml(text)


NOBODY = """
import os, sys
from typer.testing import CliRunner
from glimpse.cli.main import app
CliRunner().invoke(app, ["report", sys.argv[1]])  # imports what nobody may not read here
os.setgroups([]); os.setgid(65534); os.setuid(65534)
result = CliRunner().invoke(app, ["report", sys.argv[1], "--html", sys.argv[2]])
print(repr(result.exception), result.output, result.exit_code)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, other than pytest's."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may become nobody")
def test_what_may_not_be_read_is_said_and_hides_no_other(open_folder: Path) -> None:
    for name in ("folder", "summary", "listed", "good"):
        write_run(open_folder / "runs" / name, accuracy=0.75, data=name)
    (open_folder / "runs" / "other").mkdir(mode=0)
    (open_folder / "runs" / "folder").chmod(0)
    (open_folder / "runs" / "summary" / "summary.json").chmod(0)
    (open_folder / "runs" / "listed" / ".hydra").chmod(0)
    (open_folder / "page").mkdir()
    (open_folder / "page").chmod(0o777)
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            NOBODY,
            str(open_folder / "runs"),
            str(open_folder / "page" / "r.html"),
        ],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip().endswith("0"), result.stdout + result.stderr
    assert "0.7500" in result.stdout
    for line in (
        "folder unreadable: the folder cannot be read: permission denied",
        "other unreadable: the folder cannot be read: permission denied",
        "summary unreadable: summary.json cannot be read: Permission denied",
    ):
        assert line in result.stdout


def test_a_deep_tree_of_folders_is_searched(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    write_run(tmp_path / "good")
    assert [run.folder.name for run in find_runs(tmp_path)] == ["good"]
