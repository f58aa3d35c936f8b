"""Processes that decode, started without running the user's script again.

Where a process does not begin as a copy of its parent (macOS, Windows, Python 3.14), multiprocessing
imports the main module into it, so that a script without `if __name__ == "__main__":` would train again
in each, and one from standard input could not be found. What decodes is this package's own and needs
nothing of that script, so it is hidden while a process starts. joblib's loky can do without the main
module as well, but is private to joblib, and torch's DataLoader cannot use it.

Nothing here imports torch: the processes that decode start quickly.
"""

import multiprocessing
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from glimpse.errors import UserError

_one_at_a_time = threading.RLock()


@contextmanager
def without_main_module() -> Iterator[None]:
    """While a process is started: what multiprocessing sees of the main module says neither its file
    nor its name. Its content stays, for what other threads may pickle meanwhile."""
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
            with without_main_module():  # the server too would import it
                return context.ForkServerProcess._Popen(process_obj)

    class _ForkServerContext(context.ForkServerContext):
        Process = _ForkServed

    _CONTEXTS["forkserver"] = _ForkServerContext()


def decoding_context(method: str | None = None) -> BaseContext:
    """multiprocessing's context of a start method, None for its own choice, whose processes do not
    run the script again."""
    method = method or multiprocessing.get_start_method()
    return _CONTEXTS.get(method) or multiprocessing.get_context(method)


def ended_unexpectedly() -> UserError:
    """For when a decoding process is gone; why, it cannot say."""
    return UserError(
        "a decoding process ended unexpectedly, killed perhaps for want of memory: run again; "
        "data.num_workers=1 takes the least memory"
    )
