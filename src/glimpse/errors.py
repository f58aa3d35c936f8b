"""Errors for users. Each is one line: what was found, what was expected, and what to type."""

import signal
from types import FrameType

DIVERGED = "training diverged"  # part of the message; a search expects it of some values


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class UserError(Exception):
    """A mistake that the user can fix. Its message is one line."""


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
        """128 + signal number, as shells report it: 130 for Ctrl-C, 143 SIGTERM, 129 SIGHUP."""
        return 128 + self.signal_number


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a run: SIGINT (Ctrl-C), SIGTERM, SIGHUP unless nohup ignores it, and
    those that a cluster sends before it preempts a job."""
    both = (signal.SIGINT, signal.SIGTERM)
    hangs_up = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (*both, *((signal.SIGHUP,) if hangs_up else ()), *preemption_signals())


def preemption_signals() -> tuple[signal.Signals, ...]:
    """SIGUSR1 and SIGUSR2, if they have a handler: submitit asks SLURM to send one of them."""
    names = [name for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
    return tuple(s for name in names if callable(signal.getsignal(s := signal.Signals[name])))


def raise_interrupted(signal_number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an `Interrupted`."""
    raise Interrupted(signal_number)
