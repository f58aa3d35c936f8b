"""Let a run continue without a logger that cannot write, after one line that reports its error.

A full disk is the usual cause. A run that cannot write checkpoints, metrics.csv or summary.json
ends. Left out: errors of a logger other than OSError, such as a rejected login.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from glimpse.console import console

# The methods that Lightning calls.
METHODS = ("log_metrics", "log_hyperparams", "log_graph", "log_image", "save", "finalize")

_given_up: "WeakSet[Logger]" = WeakSet()


def guard(built: Logger) -> Logger:
    """Make a logger forgiving, and return it. It stays an instance of its class."""
    kind = type(built)
    methods = {name: _forgiving(getattr(kind, name)) for name in METHODS if hasattr(kind, name)}
    if isinstance(built, TensorBoardLogger):
        methods["finalize"] = _forgiving(_stay_open)
    # A subclass made here, because the logger may be of any class that the configuration names.
    built.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})
    if isinstance(built, TensorBoardLogger):
        _quieten_writers()
    return built


def works(logger: Logger) -> bool:
    """Whether a logger has not failed yet."""
    return logger not in _given_up


@contextmanager
def forgiving(logger: Logger) -> Iterator[None]:
    """If a logger cannot write in this block, print a message and give it up; the run continues."""
    try:
        yield
    except Exception as error:
        cause = _os_error(error)
        if cause is None:
            raise
        if works(logger):
            _given_up.add(logger)
            place = cause.filename or getattr(logger, "log_dir", None) or "its files"
            console.print(
                f"{type(logger).__name__} cannot write {place}: {cause.strerror or cause}; the run "
                "continues without this logger"
            )


def _forgiving(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Logger, *args: Any, **kwargs: Any) -> Any:
        if works(self):
            with forgiving(self):
                return method(self, *args, **kwargs)
        return None

    return call


def _stay_open(self: TensorBoardLogger, status: str) -> None:
    """Replace `finalize`, which Lightning calls after training and after each test.

    `record.close` closes the logger instead. After a `finalize`, the logger would open a second
    file, with the time in its name. If the clock has been set back, TensorBoard would read it
    before the first file, whose beginning discards everything read so far.
    """
    self.save()


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError that an error is or comes from, because Lightning wraps a writer's errors."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _quieten_writers() -> None:
    """Keep TensorBoard's writer thread from printing tracebacks. The next write fails."""
    hook = threading.excepthook
    if getattr(hook, "is_quiet", False):
        return

    def quiet(args: threading.ExceptHookArgs) -> None:
        is_writer = type(args.thread).__module__.startswith("tensorboard.")
        if not (is_writer and isinstance(args.exc_value, OSError)):
            hook(args)

    quiet.is_quiet = True  # type: ignore[attr-defined]
    threading.excepthook = quiet
