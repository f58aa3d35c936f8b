"""The signals that stop a run: which ones they are, what they do, and where they are held back."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

from glimpse.errors import Interrupted, UserError

Handler = Callable[[int, FrameType | None], None]


def _existing(*names: str) -> tuple[signal.Signals, ...]:
    """The signals of these names that this system has."""
    return tuple(signal.Signals[name] for name in names if hasattr(signal, name))


PREEMPTION = _existing("SIGUSR1", "SIGUSR2")  # a cluster sends one of them before it ends a job
SIGNALS = (*_existing("SIGINT", "SIGTERM", "SIGHUP"), *PREEMPTION)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those of `SIGNALS` that stop a run: SIGINT (Ctrl-C), SIGTERM, and others unless they are taken.

    A signal is taken if it is ignored, as nohup ignores SIGHUP, or if a library handles it outside
    Python.
    """
    always = (signal.SIGINT, signal.SIGTERM)
    taken = (signal.SIG_IGN, None)
    return tuple(s for s in SIGNALS if s in always or signal.getsignal(s) not in taken)


def preemption_signals() -> tuple[signal.Signals, ...]:
    """SIGUSR1 and SIGUSR2, if they have a handler: submitit asks SLURM to send one of them."""
    return tuple(s for s in PREEMPTION if callable(signal.getsignal(s)))


def raise_interrupted(signal_number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an `Interrupted`."""
    raise Interrupted(signal_number)


def handle_stops(handler: Handler = raise_interrupted) -> None:
    """Handle the signals that stop a run, if this is the main thread; no other one receives them."""
    if threading.current_thread() is threading.main_thread():
        for number in stop_signals():
            signal.signal(number, handler)


@contextmanager
def handling(
    numbers: Iterable[signal.Signals], handler: Handler | signal.Handlers
) -> Iterator[Mapping[signal.Signals, Any]]:
    """Handle these signals inside a block, which is given the former handlers."""
    former = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield former
    finally:
        for number, before in former.items():
            signal.signal(number, before)


@contextmanager
def interrupts_as_signals() -> Iterator[None]:
    """Raise `Interrupted` if a signal has become something else on its way here.

    A user's own code raises a KeyboardInterrupt. If a library's cleanup does not expect a signal at
    that moment, it fails, and its error takes the place of `Interrupted`: OmegaConf's does.

    Raises:
        Interrupted: a KeyboardInterrupt was raised, or an unforeseen error has replaced it.
    """
    try:
        yield
    except (UserError, OSError):  # such as a full disk, where a stopped run saves its state
        raise
    except Exception as error:
        if stop := _replaced_by(error):
            raise stop from error
        raise
    except KeyboardInterrupt as stop:
        raise Interrupted(signal.SIGINT) from stop
    except SystemExit as end:  # Lightning raises it after a KeyboardInterrupt
        if isinstance(end.__context__, KeyboardInterrupt):
            raise Interrupted(signal.SIGINT) from end
        raise


def _replaced_by(error: BaseException) -> Interrupted | None:
    """The `Interrupted` during whose handling an error occurred."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()  # Hydra's errors may name each other as their causes
    while left:
        one = left.pop()
        if isinstance(one, Interrupted):
            return one
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            left += [one.__cause__, one.__context__]
    return None


@contextmanager
def signals_held() -> Iterator[None]:
    """Block SIGNALS in the processes that start in this block, and in copies of these processes."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # it unblocks signals, so it must not start in the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def receive_signals() -> None:
    """Receive SIGNALS in a process that may have started with them blocked."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
