"""What a sweep and a search share: waiting for other processes, and how the user can continue."""

import sys
from collections.abc import Mapping

from glimpse.command import as_shown, command, in_shell, program
from glimpse.runs.sweep import NAME
from glimpse.sweeps.composing import Composer
from glimpse.sweeps.state import State

LOOK_SECONDS = 1.0  # between checks of jobs that another process runs


def what_then(counts: Mapping[State, int], composer: Composer) -> str:
    """Such as "(1 failed): the reasons are in …": the end of a sentence on jobs that did not finish.

    Args:
        counts: The number of these jobs in each state.
        composer: The sweep's composer.
    """
    told = f"({', '.join(f'{number} {state}' for state, number in counts.items())})"
    if counts.get(State.FAILED) or counts.get(State.REFUSED):
        told += f": the reasons are in {composer.folder / NAME}"
    if any(counts.get(state) for state in (State.INTERRUPTED, State.NEW, State.TO_EXTEND)):
        told += f"; to continue, type: {how_to_continue(composer)}"
    if counts.get(State.FAILED):
        retry = how_to_continue(composer, "sweep.retry_failed=true")
        told += f"; to try failed ones again, type: {retry}"
    return told


def print_start(composer: Composer) -> None:
    """Print the name of a sweep, unless the user has chosen it."""
    if not any(word.startswith("name=") for word in sys.argv[1:]):
        print(
            f"this sweep is called {composer.name}; to continue it, type: {how_to_continue(composer)}"
        )


def how_to_continue(composer: Composer, *more: str) -> str:
    """The command that continues a sweep, with the name that it was given, and with more words."""
    words = [as_shown(word) for word in sys.argv[1:] if word not in ("-m", "--multirun")]
    if not any(word.startswith("name=") for word in words):
        words.append(f"name={composer.name}")
    words += [word for word in more if word not in words]
    return in_shell(*program(command()), "-m", *words)


def print_stop(counted: str, composer: Composer) -> None:
    """Print what a stopped sweep has done so far, and the command that continues it."""
    print(f"{counted}; to continue, type: {how_to_continue(composer)}", flush=True)
