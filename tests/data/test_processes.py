"""Decoding processes never run the script that they decode for, and say truly how they ended."""

import multiprocessing
import os
import signal
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import slow
from glimpse.data import processes
from glimpse.data.decode import PixelFormat
from glimpse.data.loader import DecodedRows
from glimpse.data.processes import process_context, without_main_module
from glimpse.errors import UserError
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


@pytest.mark.parametrize(("method", "from_stdin"), [slow("spawn", False), ("forkserver", True)])
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


def end_at_once(_paths: Sequence[Path], _start: int) -> None:
    os._exit(0)


def test_a_decoding_process_that_ends_is_an_error_that_claims_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "CHUNK", 2)
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
