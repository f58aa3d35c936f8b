"""A process that must not outlive the one that started it, such as a further process of a DDP run.

Such a process would wait for the others forever, and hold its GPU. Left out: Linux's PR_SET_PDEATHSIG,
which does the same there and nothing on macOS.
"""

import os
import signal
import threading
import time

LOOK_SECONDS = 1.0


def end_with_parent() -> None:
    """From now on, kill this process when its parent has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
