"""Errors for users. Each is one line: what was found, what was expected, and what to type."""

import re
import signal

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
