"""The one place that writes files: whole or not at all, and never through a link.

A file is written under a temporary name beside its final one, flushed to the disk and renamed, so that
a reader, a full disk or a killed process never leaves half of it. Renaming replaces a link in place of
following it. A run folder may come from a stranger: nothing that it holds is followed out of it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glimpse.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path with the ending of `path`, which it replaces when the block ends without error.

    Raises:
        UserError: the file cannot be written, such as on a full disk.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        _create(partial)
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _create(path: Path) -> None:
    """An empty file of our own, in place of whatever bears its name."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def _flush_folder(folder: Path) -> None:
    """Make a renamed file's name as durable as its content, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, indented.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def subfolder(folder: Path, name: str) -> Path:
    """The folder `name` inside `folder`, made where it does not exist.

    Raises:
        UserError: it cannot be made, or is a link that leads out of `folder`.
    """
    path = folder / name
    require_inside(folder, path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def require_inside(folder: Path, path: Path) -> None:
    """Refuse a path below `folder` that links lead out of it.

    Raises:
        UserError: naming the path.
    """
    if not is_inside(folder, path):
        raise UserError(f"{path} is a link that leads out of {folder}: remove the link")


def is_inside(folder: Path, path: Path) -> bool:
    """Whether a path below `folder` is still below it once every link is followed."""
    return path.resolve().is_relative_to(folder.resolve())


def is_own_file(folder: Path, path: Path) -> bool:
    """Whether `path` is a regular file that lies in `folder` itself: no link out of it, no pipe."""
    return is_inside(folder, path) and path.is_file()


def require_no_links_out(folder: Path) -> None:
    """Refuse a folder that holds a link out of it, at any depth.

    Raises:
        UserError: naming the first such link.
    """
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.is_symlink():
                require_inside(folder, path)
