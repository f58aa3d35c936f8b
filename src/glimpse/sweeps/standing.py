"""While a sweep runs, show how many jobs are left, and how long they will take.

On a terminal to which no job prints, this is one line that stays at the bottom. A job that prints
to the terminal shows it in its own progress bar. Everywhere else, a line is printed after each
minute in which no job ends.
"""

import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from glimpse.progress_bar import LINE_SECONDS
from glimpse.text import duration, plural

REDRAW_SECONDS = 1.0  # between two versions of the line on a terminal


class Standing:
    """Show the time left; close it at the end.

    Args:
        left: Returns what is left, such as "9 jobs left, about 0:12".
        is_free: Whether no job prints to the terminal.
    """

    def __init__(self, left: Callable[[], str], *, is_free: bool) -> None:
        self._left = left
        console = Console(highlight=False, markup=False, emoji=False)
        is_live = is_free and console.is_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_live else None
        self.seconds = REDRAW_SECONDS if is_live else LINE_SECONDS
        if self._live is not None:
            self._live.start()
        self._due = 0.0
        self.postpone()

    def show(self) -> None:
        """Redraw the line, or print it if it is due."""
        if time.monotonic() < self._due:
            return
        if self._live is not None:
            self._live.update(Text(self._left()), refresh=True)
        else:
            print(self._left(), flush=True)
        self._due = time.monotonic() + self.seconds

    def postpone(self) -> None:
        """Postpone the printed line by a minute, because a line about a job has just said the same.

        A live line is redrawn now.
        """
        self._due = 0.0 if self._live is not None else time.monotonic() + LINE_SECONDS

    def close(self) -> None:
        """Remove the line."""
        if self._live is not None:
            self._live.stop()


def left_text(number: int, what: str, seconds: float | None) -> str:
    """What is left, such as "9 jobs left, about 0:12"; empty if nothing is.

    Args:
        number: The number left.
        what: The noun, such as "job".
        seconds: The time that they will take, if it is known.
    """
    if not number:
        return ""
    about = f", about {duration(seconds)}" if seconds else ""
    return f"{plural(number, what)} left{about}"
