"""The index of a cache: checksums of its files, so that no run trains on damaged data.

`index.json` holds the facts about the cache and, for every file, its size, its CRC-32 and its
stamp: the modification and change times at which the checksum was last correct. Any write to a file
changes its stamp, and no program can set the change time back. Opening a cache always reads and
compares the small files. It reads a large file only if its stamp differs, for example in a copy of
the folder; this takes about a second per gigabyte. Otherwise, opening takes microseconds for any
size. `glimpse data check` reads every file. Not detected when a cache is opened: bits that a
failing disk changes without a write.

This module does not import torch, so that decoding processes start quickly.
"""

import json
import os
import stat
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from glimpse.errors import UserError
from glimpse.files import write_text
from glimpse.progress_bar import progress_bar

NAME = "index.json"
SMALL = 2**20  # bytes; a file up to this size is always read
BLOCK = 2**20  # bytes read at a time


class DamagedError(Exception):
    """A cache that cannot be used. Its message names the file and what is wrong with it."""


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the index of all files in `folder`, which must be complete.

    Raises:
        OSError: a file cannot be read.
        UserError: the index cannot be written.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name != NAME)
    _write(folder, {"facts": dict(facts), "files": {n: _entry(folder / n) for n in names}})


def read(folder: Path, *, every_byte: bool = False) -> dict[str, Any]:
    """Check the files in `folder` against the index and return the facts about the cache.

    With `every_byte`, every file is read, however large.

    Raises:
        DamagedError: there is no cache, or one of its files is missing or has changed.
    """
    index = _load(folder)
    changed = False
    for name, entry in index["files"].items():
        changed = _check(folder / name, entry, every_byte) or changed
    if changed:  # a copy: remember the stamps, so that the next run need not read it
        with suppress(OSError, UserError):
            _write(folder, index)
    facts: dict[str, Any] = index["facts"]
    return facts


def _load(folder: Path) -> dict[str, Any]:
    try:
        if not stat.S_ISREG(os.stat(folder / NAME).st_mode):
            raise DamagedError(f"{NAME} is not a file")
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        index: dict[str, Any] = content["index"]
        if content["crc32"] != _crc32_of(index):
            raise DamagedError(f"{NAME} does not match its checksum")
    except OSError as error:
        raise DamagedError(f"{NAME}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedError(f"{NAME} is not an index") from error
    return index


def _write(folder: Path, index: Mapping[str, Any]) -> None:
    write_text(folder / NAME, json.dumps({"crc32": _crc32_of(index), "index": index}, indent=1))


def _crc32_of(index: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())


def _entry(path: Path) -> dict[str, Any]:
    status = os.stat(path)
    return {"bytes": status.st_size, "crc32": _crc32(path), "stamp": _stamp(status)}


def _check(path: Path, entry: dict[str, Any], every_byte: bool) -> bool:
    """Check a file against its entry, and update the entry's stamp; returns whether it differed."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry["bytes"]:
            raise DamagedError(
                f"{path.name} has {status.st_size:,} bytes instead of {entry['bytes']:,}"
            )
        stamp = _stamp(status)
        differs: bool = stamp != entry["stamp"]
        if (every_byte or differs or status.st_size <= SMALL) and _crc32(path) != entry["crc32"]:
            raise DamagedError(f"{path.name} does not match its checksum")
    except OSError as error:
        raise DamagedError(f"{path.name}: {error.strerror}") from error
    entry["stamp"] = stamp
    return differs


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_mtime_ns, status.st_ctime_ns]


def _crc32(path: Path) -> int:
    checksum = 0
    bar = progress_bar(f"checksum of {path.name}", path.stat().st_size, unit="B", vanishes=True)
    with path.open("rb") as file, bar:
        while block := file.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
            bar.update(len(block))
    return checksum
