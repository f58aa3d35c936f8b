"""The errors that people see: one line each, saying what was found, what was expected, what to type."""

import signal


class UserError(Exception):
    """A mistake that the person at the keyboard can mend. Its message is one line."""


class Interrupted(BaseException):
    """The run was told to stop. Not an `Exception`: it ends a whole sweep, as Ctrl-C should."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal_number
