"""A process that runs jobs one after another, so that nothing a job does can harm the sweep.

The sweep's own process starts it and sends it jobs (runner.py). A worker leads its own session:
Ctrl-C in a terminal does not reach it, and all processes that a job started can be ended together.
It ends when the sweep ends, even if the sweep is killed. A worker imports torch when it starts;
importing this file does not.
"""

import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from glimpse import socket_folder
from glimpse.command import own_configuration
from glimpse.config.explain import explain, is_foreseen
from glimpse.config.resolvers import register_resolvers
from glimpse.crash import crash, shortage
from glimpse.errors import Interrupted, LostProcessError, UserError
from glimpse.files import CannotWriteError, appending
from glimpse.folder_lock import FolderInUseError, held
from glimpse.found_checkpoint import checkpoints_of
from glimpse.job import run_in
from glimpse.runs.folder import summary_of
from glimpse.runs.settings import MAX_EPOCHS, settings_of
from glimpse.signals import SIGNALS, receive_signals
from glimpse.streams import keep_printing
from glimpse.sweeps.resources import Slot
from glimpse.sweeps.state import Found, State, look

if sys.platform == "linux":
    import fcntl

GRACE_SECONDS = 50.0  # for running jobs to save when the sweep is stopped or killed
LOG = "log.txt"  # in the run folder: the output of a job, if several run at once
_received: list[int] = []  # the signals that told this worker to stop


@dataclass(frozen=True)
class Request:
    """One job, as it is sent to a worker.

    Attributes:
        config: Its composed and checked configuration, with `hydra`.
        settings: Its settings, from `Composer.settings`.
        folder: Its run folder.
        retry_failed: Whether to try it again if it has failed before.
        attempt: The attempt that it had made when the sweep listed it, as its summary names it.
        has_log: Whether its output goes to a file in its folder.
        title: The line to print first.
        afterwards: What is left of the sweep after it, for its progress bar.
    """

    config: DictConfig
    settings: Mapping[str, str]
    folder: Path
    retry_failed: bool
    has_log: bool
    title: str
    attempt: str | None = None
    afterwards: str = ""


@dataclass(frozen=True)
class Reply:
    """How a job ended, and whether the worker ends too, because the job may have left traces."""

    found: Found
    is_last: bool


def serve(connection: Connection, slot: Slot) -> None:
    """Run jobs from the connection until it closes."""
    os.setsid()
    socket_folder.outlive_no_other()
    with suppress(Interrupted, EOFError, BrokenPipeError, ConnectionResetError):
        for number in SIGNALS:
            signal.signal(number, _interrupt)
        receive_signals()
        _wake_when_the_sweep_ends()
        threading.Thread(target=_end_with_the_sweep, daemon=True).start()
        keep_printing()  # each line at once, in order with the lines of the sweep
        setup_globals()
        register_resolvers()
        slot.settle()
        is_last = False
        for num_done in itertools.count():
            if is_last or _received:
                break
            if num_done < 2:  # later garbage collections skip everything that is imported by then
                gc.freeze()
            request = connection.recv()
            try:
                with everything_as_before():
                    found, is_last = _run(request, slot)
            except Exception as error:  # torch cannot be loaded, or the current folder has gone
                line = explain(error if is_foreseen(error) else crash(error, None))
                found, is_last = Found(State.FAILED, line, summary_of(request.folder)), True
            connection.send(Reply(found, is_last))
    for number in SIGNALS:  # nothing is left to stop
        signal.signal(number, signal.SIG_IGN)


def _interrupt(signal_number: int, _frame: FrameType | None) -> None:
    _received.append(signal_number)
    raise Interrupted(signal_number)


def _wake_when_the_sweep_ends() -> None:
    """Ask the system for SIGCONT when the sweep's process has gone.

    Nothing else could wake a worker that is suspended.
    """
    if sys.platform == "linux":
        sweep = multiprocessing.parent_process()
        assert sweep is not None
        fcntl.fcntl(sweep.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sweep.sentinel, fcntl.F_SETSIG, signal.SIGCONT)
        flags = fcntl.fcntl(sweep.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(sweep.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)


def _end_with_the_sweep() -> None:
    """When the sweep's process has gone, let the running job save, then kill all its processes."""
    sweep = multiprocessing.parent_process()
    assert sweep is not None
    sweep.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _run(request: Request, slot: Slot) -> tuple[Found, bool]:
    """Run one job. Returns how it ended, and whether this process should take no other job."""
    folder = request.folder
    try:
        with held(folder):
            found = look(folder, request.settings, is_ours=True)
            goes_on = found.state is State.PRUNED and _is_to_go_on(request.config, found)
            # An equal command may have tried it again in the meantime.
            retry = request.retry_failed and found.summary.get("attempt") == request.attempt
            if not (goes_on or found.is_to_run(retry_failed=retry)):
                return found, False
            with slot.shared(request.config) as leaves_processes, _output(request):
                return _trained(request), leaves_processes
    except FolderInUseError:
        return Found(State.RUNNING), False
    except Interrupted as stop:
        return Found(State.INTERRUPTED, str(stop), summary_of(folder)), True
    except LostProcessError as error:
        return Found(State.INTERRUPTED, explain(error), summary_of(folder)), True
    except UserError as error:
        return Found(State.FAILED, explain(error), summary_of(folder)), False
    except SystemExit as end:
        return Found(State.FAILED, f"sys.exit({end.code!r}) was called", summary_of(folder)), True
    except Exception as error:
        line = explain(error if is_foreseen(error) else crash(error, folder))
        return Found(State.FAILED, line, summary_of(folder)), True


def _is_to_go_on(config: DictConfig, found: Found) -> bool:
    """Whether a search wants more epochs of a trial that it had stopped."""
    until = config.hydra.sweeper.get("until")
    return until is not None and until > found.summary.get("epochs", 0)


def _trained(request: Request) -> Found:
    """Train the job, from its checkpoint if there is one.

    Raises:
        Exception: what the run raised.
    """
    config, folder = request.config, request.folder
    version.setbase(config.hydra.runtime.version_base)  # of the sweep; Hydra keeps it per process
    if config.task == "fit" and checkpoints_of(folder):
        with open_dict(config):
            config.resume = str(folder)
            config.hydra.output_subdir = None  # keep the record of how the run started
        sys.argv[1:] = [
            *own_configuration(sys.argv[1:]),
            f"resume={folder}",
            *_extension(config, folder),
        ]
    try:
        ended = run_job(
            task_function=partial(_task, afterwards=request.afterwards),
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=HydraContext(config_loader=None, callbacks=Callbacks(config)),  # type: ignore[arg-type]
            configure_logging=True,
        )
    except OSError as error:  # of Hydra itself; an error of the run is the returned value
        if shortage(error) is not None:
            raise
        place = error.filename or folder
        raise CannotWriteError(f"cannot write {place}: {error.strerror or error}") from error
    if isinstance(ended._return_value, Exception):
        raise ended._return_value
    summary = summary_of(folder)
    is_pruned = summary.get("status") == State.PRUNED
    return Found(State.PRUNED if is_pruned else State.FINISHED, summary=summary)


def _task(config: DictConfig, *, afterwards: str) -> float | None:
    hydra = HydraConfig.get()
    return run_in(config, hydra, Path(hydra.runtime.output_dir), afterwards=afterwards)


def _extension(config: DictConfig, folder: Path) -> list[str]:
    """The number of epochs as an override, if it is no longer the recorded one."""
    asked = str(config.trainer.max_epochs)
    return [] if settings_of(folder).get(MAX_EPOCHS) == asked else [f"{MAX_EPOCHS}={asked}"]


@contextmanager
def _output(request: Request) -> Iterator[None]:
    """Send the output of the job and its processes to its log, if it has one."""
    if not request.has_log:
        print(request.title)
        yield
        return
    _flush()
    kept = [os.dup(number) for number in (1, 2)]
    with appending(request.folder / LOG) as log:
        for number in (1, 2):
            os.dup2(log, number)
    try:
        yield
    finally:
        _flush()
        for number, former in zip((1, 2), kept, strict=True):
            os.dup2(former, number)
            os.close(former)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


@contextmanager
def everything_as_before() -> Iterator[None]:
    """Undo all that a job may have set for the whole process, so that no job affects the next."""
    import torch

    variables, arguments, here = dict(os.environ), list(sys.argv), Path.cwd()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(variables)
        sys.argv = arguments
        os.chdir(here)
        for number in SIGNALS:
            signal.signal(number, _interrupt)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled():  # the call imports the compiler in 3 s
            torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = benchmark
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
