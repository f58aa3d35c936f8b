"""Decoding processes never run the script that they decode for, and say truly how they ended."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import slow
from glimpse.data import processes, pulse
from glimpse.data.decode import PixelFormat
from glimpse.data.decoded_rows import DecodedRows
from glimpse.errors import UserError
from glimpse.process_context import process_context, without_main_module
from makers import save_image

SCRIPT = """
import multiprocessing, sys
multiprocessing.set_start_method({method!r})
from glimpse.notebook import load, train
print("script starts", flush=True)
settings = ["data=image_folder", "data.root=photos", "data.num_workers=2", "data.batch_size=300"]
run = train(*settings, "model=linear", "trainer=cpu", "trainer.max_epochs=1")
print("trained", len(run.curves["val/acc"]))
uncached = load(*settings, "data.cache=false")
print("decoded", sum(len(batch.labels) for batch in uncached.batches.loader("train")))
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """700 grey images of two classes; more than one process decodes by itself."""
    random = np.random.default_rng(0)
    for number in range(700):
        pixels = random.integers(0, 256, (4, 4, 1), np.uint8)
        save_image(pixels, tmp_path / "photos" / "ab"[number % 2] / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(("method", "from_stdin"), [slow("spawn", False), slow("forkserver", True)])
def test_a_script_without_a_guard_trains_once(photos: Path, method: str, from_stdin: bool) -> None:
    script = photos.parent / "script.py"
    script.write_text(SCRIPT.format(method=method))
    ended = subprocess.run(
        [sys.executable, *([] if from_stdin else [script.name])],
        input=script.read_text() if from_stdin else None,
        cwd=photos.parent,
        env=os.environ | {"GLIMPSE_DATA": str(photos.parent / "data")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines.count("script starts") == 1
    assert lines[-2:] == ["trained 1", "decoded 560"]


PASSES = """
import multiprocessing, sys
from pathlib import Path
import torch
from glimpse.data.decode import PixelFormat
from glimpse.data.decoded_rows import DecodedRows
multiprocessing.set_start_method("forkserver")
rows = DecodedRows([Path(sys.argv[1])] * 8, torch.zeros(8), PixelFormat(4, 4, 1), num_workers=2,
                   pin_memory=False)
for _ in range(2):
    print(sum(len(batch.labels) for batch in rows(iter(torch.arange(8).split(4)))))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork server")
def test_one_server_imports_torch_for_all_processes(tmp_path: Path) -> None:
    save_image(np.zeros((4, 4, 1), np.uint8), tmp_path / "a.png")
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", PASSES, tmp_path / "a.png"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.stdout.split() == ["8", "8"], ended.stderr
    imports = [line.split("|")[-1].strip() for line in ended.stderr.splitlines()]
    assert imports.count("torch") == 2  # here and in the server


def end_at_once(_paths: Sequence[Path], _start: int) -> None:
    os._exit(0)


def test_a_decoding_process_that_ends_is_an_error_that_claims_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "CHUNK", 2)
    monkeypatch.setattr(pulse, "SILENT_SECONDS", 200.0)  # on a busy machine, they start slowly
    paths = [Path(str(number)) for number in range(8)]
    with pytest.raises(UserError, match="ended unexpectedly, possibly because memory ran out"):
        list(processes.each_chunk(end_at_once, paths, num_workers=2))


class EndsAtOnce(Sequence[Path]):
    """Paths, of which to ask for one ends the process."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: object) -> Path:  # type: ignore[override]
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_so_is_one_that_decodes_batches() -> None:
    wanted = PixelFormat(4, 4, 1)
    decoded = DecodedRows(EndsAtOnce(), torch.zeros(8), wanted, num_workers=1, pin_memory=False)
    with pytest.raises(UserError, match="ended unexpectedly, possibly because memory ran out"):
        list(decoded(iter([torch.arange(4), torch.arange(4, 8)])))


def stop_at_once(_paths: Sequence[Path], _start: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SILENT_SECONDS", 2.0)


def wait_for_ends() -> None:
    """A thread of the pool may have waited for a process; it records the end a moment later."""
    while multiprocessing.active_children():
        time.sleep(0.01)


@pytest.mark.slow
def test_a_stopped_decoding_process_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "CHUNK", 2)
    monkeypatch.setattr(pulse, "SILENT_SECONDS", 8.0)  # long enough for them to start
    paths = [Path(str(number)) for number in range(8)]
    with pytest.raises(UserError, match=r"no image for 8 s.*or type data.num_workers=1"):
        list(processes.each_chunk(stop_at_once, paths, num_workers=2))
    wait_for_ends()


class Stops(Sequence[Path]):
    """Paths, of which to ask for one stops the process."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, row: object) -> Path:  # type: ignore[override]
        os.kill(os.getpid(), signal.SIGSTOP)
        raise AssertionError


def test_so_is_one_that_decodes_batches_and_is_stopped(impatient: None) -> None:
    wanted = PixelFormat(4, 4, 1)
    decoded = DecodedRows(Stops(), torch.zeros(8), wanted, num_workers=1, pin_memory=False)
    with pytest.raises(UserError, match=r"no image for 2 s.*or type data.num_workers=0"):
        list(decoded(iter([torch.arange(4), torch.arange(4, 8)])))
    assert multiprocessing.active_children() == []


class Slow(Sequence[Path]):
    """Images that are long in coming."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: object) -> Path:  # type: ignore[override]
        time.sleep(1.2)
        return self.path


def test_a_slow_one_is_waited_for(tmp_path: Path, impatient: None) -> None:
    save_image(np.zeros((4, 4, 1), np.uint8), tmp_path / "a.png")
    slow_ones = Slow(tmp_path / "a.png")
    decoded = DecodedRows(
        slow_ones, torch.zeros(6), PixelFormat(4, 4, 1), num_workers=1, pin_memory=False
    )
    [batch] = decoded(iter([torch.arange(4)]))
    assert len(batch.images) == 4


LITTLE_MEMORY = """
import sys
from pathlib import Path
import torch
from glimpse.data.decode import PixelFormat
from glimpse.data.decoded_rows import DecodedRows
from glimpse.errors import UserError
rows = DecodedRows([Path(sys.argv[1])] * 64, torch.zeros(64), PixelFormat(96, 96, 3, "crop"),
                   num_workers=1, pin_memory=False)
try:
    print(sum(len(batch.labels) for batch in rows(iter([torch.arange(64)]))))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("size", "found"),
    [("1m", "/dev/shm has 1.0 MB free, expected 4 MB.*data.num_workers=0"), slow("64m", "64")],
)
def test_little_shared_memory(tmp_path: Path, size: str, found: str, own_mounts: list[str]) -> None:
    save_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png")
    mounted = f'mount -t tmpfs -o size={size} none /dev/shm && exec "$@"'
    program = [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path / "a.png")]
    result = subprocess.run(
        [*own_mounts, "sh", "-c", mounted, "sh", *program],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.search(found, result.stdout), result.stdout + result.stderr


def test_the_main_module_is_hidden_only_while_a_process_starts() -> None:
    main = sys.modules["__main__"]
    with without_main_module():
        seen = sys.modules["__main__"]
        assert seen.__spec__ is None
        assert not hasattr(seen, "__file__")
        with without_main_module():  # another process starts
            pass
        assert sys.modules["__main__"] is seen
    assert sys.modules["__main__"] is main


def test_what_the_script_defines_can_be_pickled_meanwhile() -> None:
    main = sys.modules["__main__"]
    marked = types.SimpleNamespace()
    main.marked = marked  # type: ignore[attr-defined]
    try:
        with without_main_module():
            assert sys.modules["__main__"].marked is marked
    finally:
        del main.marked  # type: ignore[attr-defined]


def test_other_start_methods_are_left_alone() -> None:
    if "fork" in multiprocessing.get_all_start_methods():
        assert process_context("fork") is multiprocessing.get_context("fork")
    assert process_context().get_start_method() == multiprocessing.get_start_method()
