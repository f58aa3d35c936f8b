"""Name a configuration file that Hydra could not read because of its permissions or encoding."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException

from glimpse.errors import UserError


@contextmanager
def named_if_unreadable(folders: Sequence[Path]) -> Iterator[None]:
    """Turn the error of a configuration file that cannot be read into one line.

    Raises:
        UserError: permission to read a file or folder is missing, or a file is not UTF-8 text.
    """
    try:
        yield
    except HydraException:  # some are OSErrors too, such as the error for an unknown choice
        raise
    except UnicodeDecodeError as error:
        file = next((f for f in _files(folders) if error.object in f.read_bytes()), None)
        if file is None:
            raise
        raise UserError(
            f"{file}: expected text in UTF-8, found other bytes: save the file in UTF-8"
        ) from error
    except OSError as error:
        path = Path(os.fsdecode(error.filename)) if error.filename else None
        if path is None or not _is_read_only(path, folders):
            raise
        raise UserError(
            f"cannot read {path}: {error.strerror or error}: expected a configuration file that you can "
            f"read; type chmod u+rX {shlex.quote(str(path))}, or choose another"
        ) from error


def require_own_folder(folder: Path, typed: str = "--config-dir ") -> None:
    """Require the user's folder of configuration files to exist, and to be readable.

    Messages begin with `typed`, which says how it was given.

    Raises:
        UserError: the folder does not exist, or it cannot be read.
    """
    if not folder.is_dir():
        found = "it is a file" if folder.exists() else "there is no such folder"
        raise UserError(
            f"{typed}{folder}: {found}, expected the folder of your configuration files, with files such as "
            "model/mine.yaml"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UserError(
            f"{typed}{folder}: this folder cannot be read: type chmod u+rX {shlex.quote(str(folder))}"
        )


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in folder.glob("**/*.yaml") if path.is_file())


def _is_read_only(path: Path, folders: Sequence[Path]) -> bool:
    """Whether a path is a file or folder of configurations, which Hydra reads and never writes."""
    inside = [folder.resolve() in (path.resolve(), *path.resolve().parents) for folder in folders]
    # With `--config-dir .`, the folder holds outputs/.
    is_file = path.suffix == ".yaml" and ".hydra" not in path.parts
    return any(inside) and (is_file or (path.exists() and not os.access(path, os.R_OK | os.X_OK)))
