"""Start processes without running the user's script again.

On platforms where a process does not start as a copy of its parent (macOS, Windows, Python 3.14),
multiprocessing imports the main module into it. A script without `if __name__ == "__main__":` would
then train again in each process, and a script from standard input could not be found. Code of this
package needs nothing from that script, so the script is hidden while a process starts. joblib's
loky also works without the main module, but it is private to joblib, and torch's DataLoader cannot
use it.

Where processes start as copies of a server, the server imports once what all of them need. A signal
to the whole group, such as Ctrl-C, must not end the server while it imports.
"""

import multiprocessing
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context, forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from glimpse.signals import signals_held

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


def start_fork_server(modules: list[str]) -> None:
    """Start the server whose copies are the processes of "forkserver", unless it runs already.

    It imports these modules for all of its copies.
    """
    _CONTEXTS["forkserver"].set_forkserver_preload(modules)
    with signals_held():
        forkserver.ensure_running()


def process_context(method: str | None = None) -> BaseContext:
    """Return a multiprocessing context whose processes do not run the user's script again.

    Without a start method, it is multiprocessing's default.
    """
    method = method or multiprocessing.get_start_method()
    return _CONTEXTS.get(method) or multiprocessing.get_context(method)
