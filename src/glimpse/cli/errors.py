"""Report an error in a `glimpse` command as one line on stderr and exit with code 1."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from glimpse.errors import UserError
from glimpse.files import CannotWriteError


@contextlib.contextmanager
def one_line_errors(typed: Sequence[str] = ()) -> Iterator[None]:
    """Report any exception of the enclosed block in one line and exit with code 1.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback instead.

    Args:
        typed: the overrides given to the command, used to find the mistake.
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
        print(f"error: {explain(found, typed)}", file=sys.stderr)
        raise typer.Exit(1) from error


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


def require_png(path: Path) -> None:
    """Check that `--out` names a PNG in an existing folder.

    Raises:
        UserError: the name does not end in .png, or the folder does not exist.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: expected a file name that ends in .png")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: the folder {path.parent} does not exist")


def require_image(path: Path, *, may_be_folder: bool = True) -> None:
    """Require an image file to exist, before torch is imported.

    Raises:
        UserError: there is no such file, or it is a folder where a file is expected.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path}: there is no such file{' or folder' if may_be_folder else ''}")
    if path.is_dir() and not may_be_folder:
        raise UserError(f"{path} is a folder, expected an image file: type the name of one in it")
