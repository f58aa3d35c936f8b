"""What a run notes of its environment, and what it does not."""

import json
import subprocess
from pathlib import Path

import pytest

from glimpse import environment as noted
from glimpse.distributed.place import Place
from glimpse.environment import _checkout, environment


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with one commit."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "net.py").write_text("depth = 1\n")
    author = ("-c", "user.name=x", "-c", "user.email=x@y")
    for words in (("init", "-q"), ("add", "."), (*author, "commit", "-q", "-m", "one")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def test_a_clean_checkout_is_its_commit(checkout: Path, tmp_path: Path) -> None:
    found = _checkout(checkout)
    assert found is not None
    assert found.keys() == {"commit", "dirty"}
    assert found["dirty"] is False


def test_uncommitted_changes_are_kept_within_bounds(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "net.py").write_text("depth = 2\nurl = 'https://me:hunter2@host/x'\n")
    (checkout / "new.py").touch()
    found = _checkout(checkout)
    assert found is not None
    assert "-depth = 1\n+depth = 2" in found["diff"]
    assert found["untracked"] == ["new.py"]
    assert "https://host/x" in found["diff"]
    assert "hunter2" not in json.dumps(found)
    monkeypatch.setattr(noted, "MAX_DIFF", 20)
    found = _checkout(checkout)
    assert found is not None
    assert "more characters are not kept" in found["diff"]


def test_nothing_secret_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train.py", "data.url=https://me:hunter2@host/a.zip"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setenv("API_TOKEN", "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = environment(device="cpu", precision="32-true", place=Place(), packages=["own_package"])
    assert "hunter2" not in json.dumps(found)
    assert found["command"][-1] == "data.url=https://host/a.zip"
    assert found["variables"]["OMP_NUM_THREADS"] == "1"
    assert {"torch", "lightning", "numpy", "filelock"} <= found["versions"].keys()
    assert "own_package" in found["own_code"]


def test_a_folder_of_imports_that_cannot_be_read_ends_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python itself skips such a folder, which a variable of the shell may name."""
    monkeypatch.syspath_prepend("x" * 300)  # longer than a name may be
    assert "torch" in environment(device="cpu", precision="", place=Place())["versions"]
