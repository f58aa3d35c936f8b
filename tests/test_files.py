"""Files are written whole or not at all, and never through a link."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from glimpse.errors import UserError
from glimpse.files import (
    NO_LOCKS,
    append_text,
    is_own_file,
    locked,
    replacing,
    subfolder,
    write_text,
)
from glimpse.folder_lock import held


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    for name in ("page.html", ".0123456789abcdef.partial.html"):
        (tmp_path / name).symlink_to(target)
    write_text(tmp_path / "page.html", "new")
    assert target.read_text() == "precious"
    assert (tmp_path / "page.html").read_text() == "new"
    assert not (tmp_path / "page.html").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "precious"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text(f"half{1 / 0}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    with replacing(path) as one:
        one.write_text("one")
        write_text(path, "two")
        assert path.read_text() == "two"
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    write = (
        "import sys; from pathlib import Path; from glimpse.files import write_csv\n"
        "write_csv(Path(sys.argv[1]), ('class', 'val/\\xe9'), [('\\xe9', 1)])"
    )
    ascii_locale = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    path = tmp_path / "table.csv"
    subprocess.run([sys.executable, "-c", write, str(path)], check=True, env=ascii_locale)
    assert path.read_bytes().decode("utf-8") == "class,val/é\r\né,1\r\n"


def test_a_killed_writer_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    write = (
        "import os, sys; from pathlib import Path; from glimpse.files import replacing\n"
        "with replacing(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    for name in ("page.html", f"{'x' * 250}.html"):  # the longest name that a file may have
        path = tmp_path / name
        subprocess.run([sys.executable, "-c", write, str(path)], check=False)
        assert len(list(tmp_path.iterdir())) == 1
        write_text(path, "new")
        assert list(tmp_path.iterdir()) == [path]
        path.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
@pytest.mark.parametrize(
    ("number", "is_left"), [(errno.ENOLCK, False), (errno.EBADF, True), (errno.EAGAIN, True)]
)
def test_a_file_that_may_be_another_writers_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_left: bool
) -> None:
    """Only where there are no locks at all, a temporary file counts as left behind."""
    others = tmp_path / ".0123456789abcdef.partial.txt"
    others.write_text("half")
    lock, inode = fcntl.flock, others.stat().st_ino

    def refusing(descriptor: int, operation: int) -> None:
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(number, os.strerror(number))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refusing)
    write_text(tmp_path / "one.txt", "whole")
    assert others.exists() == is_left


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", refusing)
    with locked(tmp_path / "lock", lambda error: UserError(str(error))), held(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_only_a_file_that_nobody_has_changed_grows(tmp_path: Path) -> None:
    path, precious = tmp_path / "table.csv", tmp_path / "precious"
    write_text(path, "é\n")
    assert append_text(path, "ü\n", size=3)
    assert path.read_text("utf-8") == "é\nü\n"
    assert not append_text(path, "3\n", size=3)
    path.unlink()
    assert not append_text(path, "3\n", size=6)
    precious.write_text("123456")
    path.symlink_to(precious)
    assert not append_text(path, "3\n", size=6)
    assert precious.read_text() == "123456"
    path.unlink()
    os.mkfifo(path)
    assert not append_text(path, "3\n", size=0)


def test_a_full_disk_leaves_a_growing_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "1\n")
    append = (
        "import resource, signal, sys; from pathlib import Path; from glimpse.files import append_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))\n"
        "append_text(Path(sys.argv[1]), '23456\\n', size=2)"
    )
    failed = subprocess.run(
        [sys.executable, "-c", append, str(path)], capture_output=True, text=True
    )
    assert f"CannotWriteError: cannot write {path}" in failed.stderr
    assert path.read_text() == "1\n"


def test_a_full_disk_is_named() -> None:
    with (
        pytest.raises(UserError, match=r"cannot write /dev/shm/none/x: No such file"),
        replacing(Path("/dev/shm/none/x")),
    ):
        pass


def test_a_folder_that_is_a_link_out_is_not_written_to(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    (run / "figures").symlink_to(elsewhere)
    with pytest.raises(UserError, match="figures is a link that leads out"):
        subfolder(run, "figures")
    with pytest.raises(UserError, match="is a link that leads out"):
        subfolder(run, "figures/deeper")
    assert subfolder(run, "evaluation/test").is_dir()


def test_only_regular_files_of_the_folder_itself_are_its_own(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.write_text("secret")
    (run / "own").write_text("own")
    (run / "link").symlink_to(outside)
    (run / "inner").symlink_to(run / "own")
    assert is_own_file(run, run / "own")
    assert is_own_file(run, run / "inner")
    assert not is_own_file(run, run / "link")
    assert not is_own_file(run, run)
