"""What goes wrong in a command of `glimpse` is one line on stderr and exit code 1."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from glimpse.errors import UserError


@contextlib.contextmanager
def one_line_errors(typed: Sequence[str] = ()) -> Iterator[None]:
    """Around the work of a command; HYDRA_FULL_ERROR=1 in the environment keeps the traceback.

    Args:
        typed: the overrides that the command was given, in which a mistake is looked for.
    """
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # Hydra is imported only when there is something to explain.
        from glimpse.config.explain import crash, explain, is_foreseen

        found = error if is_foreseen(error) else crash(error, None)
        print(f"error: {explain(found, typed)}", file=sys.stderr)
        raise typer.Exit(1) from error


def require_png(path: Path) -> None:
    """What `--out` names can be written as a PNG.

    Raises:
        UserError: it cannot.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: expected a name that ends in .png")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}")
