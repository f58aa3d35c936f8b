"""Report an error in a `glimpse` command as one line on stderr and exit with code 1."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import typer

from glimpse.command import in_shell
from glimpse.errors import UserError, refuse_web_address
from glimpse.files import CannotWriteError


@contextlib.contextmanager
def one_line_errors(typed: Sequence[str] = (), *, has_set: bool = False) -> Iterator[None]:
    """Report any exception of the enclosed block in one line and exit with code 1.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback instead.

    Args:
        typed: The overrides given to the command, used to find the mistake.
        has_set: Whether the command takes settings as `--set KEY=VALUE` only.
    """
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # Hydra is slow to import and only needed to explain an error.
        from glimpse.config.explain import explain, is_foreseen
        from glimpse.crash import crash

        found = error if is_foreseen(error) else crash(error, None)
        line = explain(found, typed)
        print(f"error: {as_options(line, typed) if has_set else line}", file=sys.stderr)
        raise typer.Exit(1) from error


def as_options(message: str, typed: Sequence[str] = ()) -> str:
    """A message that says to type settings, as `--set KEY=VALUE` instead of KEY=VALUE.

    Args:
        message: The message.
        typed: The settings that the user typed; the others are those that the run recorded.
    """
    lost = re.match(r"(data\.\w+)=(?![/~]|\w+:).*?: no such (folder|table)", message)
    if lost and not any(word.startswith(f"{lost[1]}=") for word in typed):
        return (
            f"{lost[0]} (the run recorded this path relative to the folder it was started in): type "
            f"--set {lost[1]}=<its place>"
        )
    return re.sub(r"\b(type|or) (?=(data_dir|data\.[\w.]+)=)", r"\1 --set ", message)


def require_no_setting(paths: Iterable[Path]) -> None:
    """Reject a setting in place of a path.

    Raises:
        UserError: a path that does not exist is written like a setting.
    """
    for path in paths:
        if re.match(r"[a-z_]+(\.\w+)*=", str(path)) and not os.path.lexists(path):
            typed = in_shell("--set", str(path))
            raise UserError(f"{path}: found a setting, expected a path: type {typed}")


@contextlib.contextmanager
def elsewhere(typed: str) -> Iterator[None]:
    """Say what to type if the enclosed block cannot write to its place.

    Raises:
        CannotWriteError: it cannot.
    """
    try:
        yield
    except CannotWriteError as error:
        raise CannotWriteError(f"{error}: type {typed}") from error


def require_ending(path: Path, option: str, ending: str) -> None:
    """Require the ending of a file to write, so that no file of another kind is replaced.

    Raises:
        UserError: the path ends otherwise.
    """
    if path.suffix.lower() != ending:
        typed = in_shell(option, str(path.with_suffix(ending)))
        raise UserError(
            f"{option} {path}: expected a file name that ends in {ending}: type {typed}"
        )


def require_image(path: Path, *, may_be_folder: bool = True) -> None:
    """Require an image file to exist, before torch is imported.

    Raises:
        UserError: there is no such file, or it is a folder where a file is expected.
    """
    if not os.path.lexists(path):
        refuse_web_address(path)
        raise UserError(f"{path}: there is no such file{' or folder' if may_be_folder else ''}")
    if path.is_dir() and not may_be_folder:
        raise UserError(f"{path} is a folder, expected an image file: type the name of one in it")
