"""Runs in processes of their own, which stop themselves by a signal at a chosen moment.

A process is forked from one that has imported everything, so that an attempt costs little more than its
training. `same` compares what two runs have left.
"""

import csv
import io
import itertools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from glimpse import checkpoint_file, files
from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.callbacks.epoch_record import EpochRecord, rows_of
from glimpse.callbacks.run_state import RunState
from glimpse.callbacks.stop_on_signal import StopOnSignal
from glimpse.classifier import ImageClassifier
from glimpse.errors import Interrupted
from glimpse.run import run
from glimpse.signals import raise_interrupted, stop_signals
from glimpse.summary import Summary

# A stop happens before or after one of these, or when half of a checkpoint has been written.
MOMENTS: dict[str, tuple[Any, str]] = {
    "training starts": (RunState, "on_train_start"),
    "an epoch starts": (StopOnSignal, "on_train_epoch_start"),
    "a step": (ImageClassifier, "training_step"),
    "a batch ends": (StopOnSignal, "on_train_batch_end"),
    "a validation step": (ImageClassifier, "validation_step"),
    "a validation ends": (Checkpoints, "on_validation_end"),
    "an epoch ends": (EpochRecord, "on_train_epoch_end"),
    "the last checkpoint": (Checkpoints, "on_train_epoch_end"),
    "a checkpoint is sealed": (checkpoint_file, "_seal"),
    "a file is written": (files, "_flush_folder"),
    "loggers are told": (TensorBoardLogger, "log_metrics"),
    "training ends": (StopOnSignal, "on_train_end"),
    "a test step": (ImageClassifier, "test_step"),
    "the summary": (Summary, "end"),
}
HALF_WRITTEN = "half of a checkpoint"
ANY_CALL = "any call"  # of a Python function


class Stop(NamedTuple):
    """A signal that a process sends to itself.

    `nth` counts how often the moment comes, from 0: first before the call, then after it.
    """

    moment: str
    nth: int
    number: signal.Signals


class _Clock:
    """Counts moments, and sends the signal at the chosen one."""

    def __init__(self, stop: Stop | None) -> None:
        self.stop = stop
        self.counts: dict[str, int] = {}

    def tick(self, moment: str) -> None:
        now = self.counts.get(moment, 0)
        self.counts[moment] = now + 1
        if self.stop and (self.stop.moment, self.stop.nth) == (moment, now):
            os.kill(os.getpid(), self.stop.number)

    def around(self, moment: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def ticking(*args: Any, **kwargs: Any) -> Any:
            self.tick(moment)
            result = function(*args, **kwargs)
            self.tick(moment)
            return result

        return ticking

    def save_in_halves(self, save: Callable[..., None]) -> Callable[..., None]:
        def saving(content: Any, file: Any, **more: Any) -> None:
            if more:  # torch.distributed's own messages
                save(content, file, **more)
                return
            whole = io.BytesIO()
            save(content, whole)
            written = whole.getvalue()
            file.write(written[: len(written) // 2])
            file.flush()
            self.tick(HALF_WRITTEN)
            file.write(written[len(written) // 2 :])

        return saving

    def watch(self, patches: ExitStack) -> None:
        for moment, (owner, name) in MOMENTS.items():
            ticking = self.around(moment, getattr(owner, name))
            patches.enter_context(mock.patch.object(owner, name, ticking))
        halved = self.save_in_halves(torch.save)
        patches.enter_context(mock.patch.object(torch, "save", halved))
        if self.stop and self.stop.moment == ANY_CALL:
            calls = itertools.count()

            def count(_frame: Any, event: str, _argument: Any) -> None:
                assert self.stop is not None
                if event == "call" and next(calls) == self.stop.nth:
                    sys.setprofile(None)
                    os.kill(os.getpid(), self.stop.number)

            sys.setprofile(count)


def _attempt(
    config: dict[str, Any], folder: Path, names: Mapping[str, str], stop: Stop | None, log: Path
) -> None:
    """The life of the process. It ends with the exit code of `train.py`."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    torch.set_num_threads(1)
    sys.argv = ["train.py"]
    for number in stop_signals():
        signal.signal(number, raise_interrupted)
    # The fork server may be that of an earlier test's sweep, which blocks them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())
    clock, code = _Clock(stop), 0
    try:
        with ExitStack() as patches:
            clock.watch(patches)
            if config["callbacks"]["pictures"] is None:
                draws = "glimpse.callbacks.pictures.draw_curves"
                patches.enter_context(mock.patch(draws))
            run(OmegaConf.create(config), folder, names)
    except Interrupted as interrupted:
        code = interrupted.exit_code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.setprofile(None)
    (log.parent / "moments.json").write_text(json.dumps(clock.counts))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing of what the fork has inherited is torn down


def attempt(
    config: dict[str, Any],
    folder: Path,
    names: Mapping[str, str],
    stop: Stop | None = None,
    *,
    seconds: float = 120,
) -> int:
    """Run in a process of its own, and return its exit code, negative if a signal has killed it.

    What it prints goes to `<folder>.log`.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["attempts"])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        ensure_running()  # Python 3.11 does not tell the server where the modules are
    log = folder.with_name(f"{folder.name}.log")
    # The names of TensorBoard's files hold the second of their start and sort by it.
    time.sleep(1.01 - time.time() % 1)
    process = context.Process(target=_attempt, args=(config, folder, names, stop, log))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"the run hangs after {stop}: {log.read_text()}")
    return process.exitcode


def moments(folder: Path) -> dict[str, int]:
    """How often each moment came in the last attempt that was not killed."""
    found: dict[str, int] = json.loads((folder.parent / "moments.json").read_text())
    return found


# What a run has left ------------------------------------------------------------------------------

TIMES = ("images_per_second", "seconds", "time_elapsed")
# Lightning's counters are not compared: what they count is. The configuration differs by `resume`.
NOT_STATE = ("loops", "config")


def left(folder: Path) -> dict[str, Any]:
    """Everything that must not depend on stops: checkpoints, metrics.csv, summary.json and curves."""
    checkpoints = {}
    for path in sorted((folder / "checkpoints").iterdir()):
        saved = torch.load(path, weights_only=True)
        record = saved["callbacks"]["EpochRecord"]
        record["rows"] = rows_of(record["rows"])
        checkpoints[path.name] = _without_times(saved)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [_without_times(row) for row in csv.DictReader(file)]
    summary = json.loads((folder / "summary.json").read_text())
    kept = ("status", "metrics", "epochs", "best_epoch", "class_recall", "majority_acc")
    found = {
        "checkpoints": checkpoints,
        "metrics.csv": rows,
        "summary.json": {name: summary.get(name) for name in kept},
    }
    if (folder / "tensorboard").exists():
        found["curves"] = curves(folder)
    return found


def curves(folder: Path) -> dict[str, Any]:
    """The points (step, value) of each curve, as TensorBoard shows them, and the steps of all else."""
    events = EventAccumulator(str(folder / "tensorboard"), {"tensors": 0})
    events.Reload()
    found: dict[str, Any] = {}
    for tag in set(events.Tags()["tensors"]) - set(TIMES):
        is_curve = events.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
        points = events.Tensors(tag)
        if points:
            found[tag] = [
                (p.step, make_ndarray(p.tensor_proto).item()) if is_curve else p.step
                for p in points
            ]
    return dict(sorted(found.items()))


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        dropped = (*TIMES, *NOT_STATE)
        return {key: _without_times(v) for key, v in value.items() if key not in dropped}
    if isinstance(value, list | tuple):
        return [_without_times(one) for one in value]
    return value


def difference(one: Any, other: Any, path: str = "") -> str | None:
    """Where two values differ first; None if they are equal, bit for bit."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"{path}: {list(one)} and {list(other)}"
        return _first(difference(one[key], other[key], f"{path}/{key}") for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{path}: {one} and {other}"
        pairs = enumerate(zip(one, other, strict=True))
        return _first(difference(a, b, f"{path}/{number}") for number, (a, b) in pairs)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        equal = one.dtype == other.dtype and np.array_equal(one.numpy(), other.numpy())
        return None if equal else f"{path}: tensors"
    return None if one == other else f"{path}: {one!r} and {other!r}"


def _first(found: Any) -> str | None:
    return next((one for one in found if one), None)
