"""Decode images in several processes, in order, and show the progress.

This module does not import torch, so that decoding processes start quickly.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, TypeVar

from glimpse.data.pulse import TICK, Pulse, Watch, at_work
from glimpse.errors import UserError
from glimpse.process_context import process_context
from glimpse.progress_bar import progress_bar
from glimpse.signals import stop_signals

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

CHUNK = 512  # images that a decoding process receives at a time
SMALL_CHUNK = 32  # images per step of the progress bar if there is only one process
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def kill(started: Iterable[BaseProcess]) -> None:
    """Kill processes and wait for their end. A suspended process ignores gentler signals."""
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
    """In a decoding process, ignore Ctrl-C and a closed terminal, which the run handles."""
    for number in stop_signals():
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


def each_chunk(
    function: Callable[[Sequence[_Item], int], _Result],
    items: Sequence[_Item],
    *,
    num_workers: int,
    what: str = "reading",
) -> Iterator[_Result]:
    """Yield `function(chunk, index of its first item)` for each chunk of files or rows, in order.

    The function runs in `num_workers` processes. Progress is shown as `what` is being done.

    Raises:
        UserError: a process cannot be started, ended unexpectedly, or hangs.
    """
    workers = max(1, min(num_workers, -(-len(items) // CHUNK)))
    alone = workers == 1  # a few images take less time than starting a process
    starts = range(0, len(items), SMALL_CHUNK if alone else CHUNK)
    chunks = [items[start : start + starts.step] for start in starts]
    progress = progress_bar(what, len(items), unit="image")
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
            started += (pool._processes or {}).values()  # `submit` has started all of them
            for chunk in chunks:
                yield _awaited(futures.pop(0), watch)
                progress.update(len(chunk))
        except BrokenProcessPool as error:
            kill(started)
            raise ended_unexpectedly() from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            kill(started)  # their results are no longer needed, and one of them may be suspended
            raise


def _awaited(future: "Future[_Result]", watch: Watch) -> _Result:
    """Wait for a result as long as the decoding processes show signs of life."""
    while True:
        try:
            return future.result(timeout=TICK)
        except TimeoutError:
            if future.done():  # it is the function's own error
                return future.result()
            watch.waited()


def _decoded(
    function: Callable[[Sequence[_Item], int], _Result], chunk: Sequence[_Item], start: int
) -> _Result:
    """In a decoding process: call the function."""
    with at_work():
        return function(chunk, start)


def _begin_decoding(pulse: Pulse, taken: "Synchronized[int]") -> None:
    """Set up a decoding process: take a place, leave Ctrl-C to the run, and end with the run."""
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
