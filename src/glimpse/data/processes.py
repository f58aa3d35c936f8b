"""Decode files in several processes, without running the user's script again.

On platforms where a process does not start as a copy of its parent (macOS, Windows, Python 3.14),
multiprocessing imports the main module into it. A script without `if __name__ == "__main__":` would
then train again in each process, and a script from standard input could not be found. The decoding
code is part of this package and needs nothing from that script, so the script is hidden while a
process starts. A process that hangs is noticed by its pulse, so that the run ends with an error
within a minute instead of waiting for ever. joblib's loky also works without the main module, but it is private to joblib, and
torch's DataLoader cannot use it.

This module does not import torch, so that decoding processes start quickly.
"""

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import context
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from glimpse.errors import UserError, stop_signals

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

CHUNK = 512  # images that a decoding process receives at a time
SILENT_SECONDS = 40.0  # a process that reads no image for so long is stopped or hangs
TICK = 1.0  # seconds between two looks at the pulse
SMALL_CHUNK = 32  # images per step of the progress bar if there is only one process
_Result = TypeVar("_Result")
_one_at_a_time = threading.RLock()


@contextmanager
def without_main_module() -> Iterator[None]:
    """Hide the file and the name of the main module from multiprocessing while a process starts.

    The content of the module remains, because other threads may pickle it in the meantime.
    """
    with _one_at_a_time:
        main = sys.modules["__main__"]
        stand_in = types.ModuleType("__main__")
        hidden = {"__file__", "__spec__"}
        vars(stand_in).update({key: v for key, v in vars(main).items() if key not in hidden})
        sys.modules["__main__"] = stand_in
        try:
            yield
        finally:
            sys.modules["__main__"] = main


class _Spawned(context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802
        with without_main_module():
            return context.SpawnProcess._Popen(process_obj)


class _SpawnContext(context.SpawnContext):
    Process = _Spawned


_CONTEXTS: dict[str, BaseContext] = {"spawn": _SpawnContext()}

if sys.platform != "win32":

    class _ForkServed(context.ForkServerProcess):
        @staticmethod
        def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802
            with without_main_module():  # the server would import it too
                return context.ForkServerProcess._Popen(process_obj)

    class _ForkServerContext(context.ForkServerContext):
        Process = _ForkServed

    _CONTEXTS["forkserver"] = _ForkServerContext()


def process_context(method: str | None = None) -> BaseContext:
    """Return a multiprocessing context whose processes do not run the user's script again.

    Args:
        method: A start method; None for multiprocessing's default.
    """
    method = method or multiprocessing.get_start_method()
    return _CONTEXTS.get(method) or multiprocessing.get_context(method)


class Pulse:
    """Signs of life of decoding processes, in memory that they share with the run.

    Each counts the images that it reads, in a place of its own: above 0 while it works, below while it
    waits for work.

    Args:
        num_workers: The number of processes.
        context: What starts them.
    """

    def __init__(self, num_workers: int, context: BaseContext) -> None:
        self._counts = context.RawArray("q", num_workers)

    def begin(self, place: int) -> None:
        """In a decoding process: take a place."""
        global _own
        _own = (self, place)

    def set(self, place: int, *, at_work: bool) -> None:
        """In a decoding process: give a sign of life."""
        count = abs(self._counts[place]) + 1
        self._counts[place] = count if at_work else -count

    def read(self) -> list[int]:
        """Return the count of each process."""
        return list(self._counts)


_own: tuple[Pulse, int] | None = None  # the pulse and the place of this process, if it decodes


def still_working() -> None:
    """In a decoding process: note that it has read an image. Elsewhere without effect."""
    if _own is not None:
        _own[0].set(_own[1], at_work=True)


@contextmanager
def at_work() -> Iterator[None]:
    """In a decoding process: mark it as working while the block runs. Elsewhere without effect."""
    still_working()
    try:
        yield
    finally:
        if _own is not None:
            _own[0].set(_own[1], at_work=False)


class Watch:
    """Look at a pulse while the run waits; the time that the run itself is stopped does not count.

    Args:
        pulse: The pulse of the decoding processes.
        remedy: What to type where one hangs.
    """

    def __init__(self, pulse: Pulse, remedy: str) -> None:
        self._pulse = pulse
        self._remedy = remedy
        self._seen = pulse.read()
        self._silent = [0.0] * len(self._seen)  # seconds, of each process that works
        self._all_silent = 0.0

    def waited(self, seconds: float) -> None:
        """Note that the run has waited for so long without a result.

        Raises:
            UserError: A process has read nothing for `SILENT_SECONDS`.
        """
        counts = self._pulse.read()
        self._all_silent = 0.0 if counts != self._seen else self._all_silent + seconds
        for place, (now, before) in enumerate(zip(counts, self._seen, strict=True)):
            is_silent = now == before and now > 0
            self._silent[place] = self._silent[place] + seconds if is_silent else 0.0
        self._seen = counts
        if max(self._all_silent, *self._silent) >= SILENT_SECONDS:
            raise UserError(
                f"a decoding process has read no image for {SILENT_SECONDS:g} s: it is stopped, or waits "
                f"for a disk or a network drive; run the same command again, or type {self._remedy}"
            )


def kill(started: Iterable[BaseProcess]) -> None:
    """Kill processes and wait until they have ended. A stopped process reacts to nothing else."""
    for process in started:
        process.kill()
        process.join()


def ended_unexpectedly() -> UserError:
    """Return the error for a decoding process that ended for an unknown reason."""
    return UserError(
        "a decoding process ended unexpectedly, possibly because memory ran out: run the same "
        "command again, or type data.num_workers=1 to use less memory"
    )


def leave_stops_to_the_run() -> None:
    """In a decoding process, ignore Ctrl-C and a closed terminal, which reach all its processes."""
    for number in stop_signals():
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


def each_chunk(
    function: Callable[[Sequence[Path], int], _Result], paths: Sequence[Path], *, num_workers: int
) -> Iterator[_Result]:
    """Yield `function(files, index of the first)` for each chunk of files, in order.

    The function runs in `num_workers` processes, with a progress bar.

    Raises:
        UserError: A process cannot be started, ended unexpectedly, or hangs.
    """
    workers = max(1, min(num_workers, -(-len(paths) // CHUNK)))
    alone = workers == 1  # a few images take less time than starting a process
    starts = range(0, len(paths), SMALL_CHUNK if alone else CHUNK)
    chunks = [paths[start : start + starts.step] for start in starts]
    progress = tqdm(total=len(paths), unit="image", disable=None)
    if alone:
        with progress:
            for chunk, start in zip(chunks, starts, strict=True):
                yield function(chunk, start)
                progress.update(len(chunk))
        return
    context = process_context("spawn")
    try:
        pulse, taken = Pulse(workers, context), context.Value("i", 0)
        pool = ProcessPoolExecutor(
            workers, context, initializer=_begin_decoding, initargs=(pulse, taken)
        )
    except OSError as error:  # their locks and pipes need /dev/shm and open files
        raise UserError(
            f"cannot start decoding processes ({error.strerror or error}): type data.num_workers=1"
        ) from error
    watch = Watch(pulse, "data.num_workers=1, which decodes in the run itself")
    started: list[BaseProcess] = []
    with pool, progress:
        try:
            futures = [
                pool.submit(_decoded, function, chunk, start)
                for chunk, start in zip(chunks, starts, strict=True)
            ]
            started += (pool._processes or {}).values()  # all of them, after the first order
            for chunk in chunks:
                yield _awaited(futures.pop(0), watch)
                progress.update(len(chunk))
        except BrokenProcessPool as error:
            kill(started)
            raise ended_unexpectedly() from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            kill(started)  # what they decode is of no use any more, and one may be stopped
            raise


def _awaited(future: "Future[_Result]", watch: Watch) -> _Result:
    """Wait for a result as long as the decoding processes show signs of life."""
    while True:
        try:
            return future.result(timeout=TICK)
        except TimeoutError:
            if future.done():  # it is the function's own error
                return future.result()
            watch.waited(TICK)


def _decoded(
    function: Callable[[Sequence[Path], int], _Result], chunk: Sequence[Path], start: int
) -> _Result:
    """In a decoding process: call the function."""
    with at_work():
        return function(chunk, start)


def _begin_decoding(pulse: Pulse, taken: "Synchronized[int]") -> None:
    """Set up a decoding process: take a place, ignore Ctrl-C, which the run handles, and end with it."""
    leave_stops_to_the_run()
    with taken.get_lock():
        place = taken.value
        taken.value += 1
    pulse.begin(place)
    run = multiprocessing.parent_process()
    assert run is not None

    def end_with_it() -> None:
        run.join()
        os._exit(1)  # the process is waiting for work that will never arrive

    threading.Thread(target=end_with_it, daemon=True).start()
