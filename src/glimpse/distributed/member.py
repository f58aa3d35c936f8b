"""Take part in a run that another process leads: `python -m glimpse.distributed.member`.

A member composes no configuration and prints nothing. The first process sends it the configuration
and the folder. A member that the first process has started ends when its standard input closes.
"""

import os
import sys
import threading
import warnings
from pathlib import Path

from glimpse import socket_folder
from glimpse.config.explain import explain
from glimpse.distributed.place import Place, place_of
from glimpse.errors import Interrupted, LostProcessError, UserError
from glimpse.memory import without_collection
from glimpse.signals import handle_stops


def follow(place: Place) -> int:
    """Wait for the first process's message, take part in its run, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stderr = sys.stdout  # the output of a crash in C++ still appears
    warnings.simplefilter("ignore")  # the first process has shown them
    from omegaconf import OmegaConf

    from glimpse.distributed.team import TeammateError, connected

    try:
        told = connected(place).told()
        if "exit" in told:
            _say(place, str(told["error"]))
            return int(told["exit"])
        with without_collection("glimpse.run"):
            from glimpse.run import run

        config = OmegaConf.create(told["config"])
        run(config, Path(told["folder"]), told["names"])
    except Interrupted as stop:
        return stop.exit_code
    except Exception as error:
        # The first process shows an error that happened here; another node's log shows it, too.
        if isinstance(error, TeammateError | LostProcessError) or place.local_rank == 0:
            _say(place, explain(error))
        elif isinstance(error, UserError) and "MASTER_ADDR" in str(error):
            print(f"error: {explain(error)}", file=sys.__stderr__, flush=True)
        return 1
    return 0


def _say(place: Place, error: str) -> None:
    """Show an error once on every node but the first, where the first process shows it."""
    if error and place.node and place.local_rank == 0:
        print(f"error: {error}", file=sys.__stderr__, flush=True)


def _end_with_it() -> None:
    """End when the first process closes this one's standard input.

    This reads the descriptor, not `sys.stdin`. A decoding process that is forked meanwhile would
    inherit the lock of `sys.stdin`, and would wait for it for ever when it closes the stream.
    """
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> int:
    """Take part in the run of the process that started this one."""
    threading.Thread(target=_end_with_it, daemon=True).start()
    handle_stops()
    return follow(place_of(os.environ))


if __name__ == "__main__":
    code = main()
    socket_folder.discard_if_last()
    sys.stdout.flush()
    os._exit(code)  # the thread that reads standard input would delay a normal exit
