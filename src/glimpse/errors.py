"""Errors for users. Each is one line: what was found, what was expected, and what to type."""

import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]  # of signals

LOWER_RATE = "type a lower optimizer.lr (task=lr_find suggests one)"  # after a divergence
DIVERGED = "training diverged"  # part of the message; a search expects this for some values


def one_line(text: str, otherwise: str = "no message") -> str:
    """The first line of a text that is not blank, or another text if there is none."""
    lines = (line.strip() for line in text.splitlines())
    return next(filter(None, lines), otherwise)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind if it has none."""
    return one_line(str(error), otherwise=type(error).__name__)


class UserError(Exception):
    """A mistake that the user can fix. Its message is one line."""


class DivergedError(UserError):
    """The loss is no longer a finite number."""


class LostProcessError(UserError):
    """Another process of the run was killed, or ended without an error. The run can be resumed."""


class UnreadableImageError(UserError):
    """A file is not an image, is truncated or is rejected; `data.on_bad_file=skip` skips it."""


class Interrupted(BaseException):
    """The run was told to stop. It is not an `Exception`, so that Ctrl-C ends a whole sweep."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")

    @property
    def exit_code(self) -> int:
        """128 + signal number, as in shells: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + self.signal_number


def refuse_web_address(path: object) -> None:
    """Raise a UserError for a web address in place of an image file."""
    if found := re.match(r"(https?):/+(.*)", str(path)):  # a Path has lost a slash
        raise UserError(
            f"{found[1]}://{found[2]} is a web address, expected a file: download the image first"
        )


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a run: SIGINT (Ctrl-C), SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2.

    A cluster sends one of the last two before it ends a job.

    A signal is left out if it is ignored, as nohup ignores SIGHUP, or if a library handles it
    outside Python.
    """
    names = [name for name in ("SIGHUP", *_PREEMPTION) if hasattr(signal, name)]
    handlers = {signal.Signals[name]: signal.getsignal(signal.Signals[name]) for name in names}
    free = (s for s, handler in handlers.items() if handler not in (signal.SIG_IGN, None))
    return (signal.SIGINT, signal.SIGTERM, *free)


_PREEMPTION = ("SIGUSR1", "SIGUSR2")


def preemption_signals() -> tuple[signal.Signals, ...]:
    """SIGUSR1 and SIGUSR2, if they have a handler: submitit asks SLURM to send one of them."""
    names = [name for name in _PREEMPTION if hasattr(signal, name)]
    return tuple(s for name in names if callable(signal.getsignal(s := signal.Signals[name])))


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
    numbers: Iterable[signal.Signals], handler: Handler
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
