"""Safe extraction of untrusted archives: only regular files and folders, written by this module.

tarfile's own filter has been bypassed (CVE-2025-4517: a chain of links under names longer than
PATH_MAX ends outside the folder). This module therefore creates no links and lets no library write.
Before it writes a byte, it rejects archives with anything other than regular files and folders, and
archives that unpack to a suspicious size. Left out: permissions, owners and times, which datasets
do not need; archives with a password; archives within archives.
"""

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, Any, cast

from glimpse.errors import UserError
from glimpse.progress_bar import tracked
from glimpse.streams import printable
from glimpse.text import cut

MOST_ENTRIES = 20_000_000  # ImageNet-21k has 14 million files, iNaturalist 2021 2.7 million
MOST_BYTES = 4 * 2**40  # ImageNet-21k unpacks to 1.3 TB, iNaturalist 2021 to 0.3 TB
LARGE = 256 * 2**20  # bytes; up to this unpacked size, any compression ratio is accepted
MOST_RATIO = 100  # for large archives; MNIST as CSV has 7, photographs 1, zeros 1,000 and more
LONGEST_NAME = 255  # bytes in one part of a path, on every common file system
LONGEST_PATH = 1024  # bytes: PATH_MAX of macOS; Linux has 4096
LARGEST_HEADER = 2**20  # bytes of header that a tar may have for one entry
BLOCK = 2**18  # bytes copied at a time

_COMPRESSED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


@dataclass(frozen=True)
class Entry:
    """A file or a folder in an archive, after the check of its name and kind.

    `parts` are the parts of its path below the target folder. `end` is the number of bytes that the
    archive unpacks to up to the end of this entry (for a tar, including headers).
    """

    parts: tuple[str, ...]
    is_folder: bool
    size: int
    end: int
    open: Callable[[], IO[bytes]]


def survey(archive: Path, folder: Path) -> int:
    """Check an archive without writing anything, and return its number of entries.

    Raises:
        UserError: an entry is not allowed, the unpacked size is suspicious, or the content does not
            fit on the disk of `folder`.
    """
    packed = archive.stat().st_size
    free = shutil.disk_usage(
        next(f for f in (folder, *folder.absolute().parents) if f.is_dir())
    ).free
    number = 0
    with _entries(archive) as entries:
        checked = tracked(entries, "checking", None, unit="file", vanishes=True)
        for number, entry in enumerate(checked, 1):
            _check_proportions(archive, number, entry.end, packed)
            if entry.end > free:
                raise UserError(
                    f"{archive} unpacks to {_in_gb(entry.end)} or more, but {folder} has only "
                    f"{_in_gb(free)} free: free some space there and run the same command again"
                )
    return number


def extract(archive: Path, folder: Path, *, num_entries: int) -> None:
    """Write an archive's files into an empty folder.

    Args:
        archive: An archive that `survey` has accepted.
        folder: A new folder that no other process writes to.
        num_entries: The count that `survey` returned.

    Raises:
        UserError: an entry is not allowed.
    """
    with _entries(archive) as entries:
        for entry in tracked(entries, "unpacking", num_entries, unit="file"):
            path = folder.joinpath(*entry.parts)
            if entry.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with entry.open() as packed, open(path, "wb", opener=_without_following) as file:
                shutil.copyfileobj(packed, file, BLOCK)
                if file.tell() != entry.size:
                    raise EOFError(f"{shown(path.name)} is truncated")


def only_files_and_folders(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Filter tarfile members for libraries that unpack archives themselves: our check, then
    Python's.

    Raises:
        UserError: the member is not a file or folder, or its path leads outside the folder.
    """
    _check_member("the archive", member)
    return tarfile.data_filter(member, folder)


def shown(name: str) -> str:
    """Make an entry's name printable for a message: one escaped line, at most 100 characters."""
    return cut(printable(name[:LONGEST_NAME]), 100)


def _without_following(path: str, flags: int) -> int:
    """Open a file for writing, but fail on a link.

    If two entries have the same name, the later one replaces the earlier one, as in tar.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _check_proportions(archive: Path, num_entries: int, num_bytes: int, packed: int) -> None:
    if num_entries > MOST_ENTRIES:
        why = f"it contains more than {MOST_ENTRIES:,} entries"
    elif num_bytes > MOST_BYTES:
        why = f"it unpacks to more than {_in_gb(MOST_BYTES)}"
    elif num_bytes > max(LARGE, MOST_RATIO * packed):
        why = (
            f"its {packed:,} bytes unpack to {num_bytes:,} or more, over {MOST_RATIO} times as many, "
            "like a decompression bomb"
        )
    else:
        return
    raise _rejected(archive, why)


def _in_gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[Entry]]:
    """Open a zip or tar, recognised by its content, and yield its entries in order."""
    with archive.open("rb") as file:
        head = file.read(512)
    is_tar = head[257:262] == b"ustar" or head.startswith(tuple(_COMPRESSED))
    if not is_tar and zipfile.is_zipfile(archive):  # a tar that ends with a zip looks like one
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_entries(archive, zipped)
        return
    openers = (opener for magic, opener in _COMPRESSED.items() if head.startswith(magic))
    opener: Callable[[Path], Any] = next(openers, partial(open, mode="rb"))
    with (
        opener(archive) as stream,
        tarfile.open(fileobj=cast(Any, limited := _LimitedReads(stream)), mode="r:") as tarred,
    ):
        yield _tar_entries(archive, tarred, limited)


class _LimitedReads:
    """A stream with a limit on what is read from one place, because a tar header states its length.

    Some versions of Python read a long header at once, others in pieces.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.tell = stream.tell
        self._stream = stream
        self.renew()

    def renew(self) -> None:
        """Begin to count anew, as each seek does."""
        self._left = LARGEST_HEADER

    def seek(self, place: int) -> int:
        self.renew()
        return self._stream.seek(place)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise tarfile.ReadError(f"a header of more than {LARGEST_HEADER:,} bytes")
        self._left -= size
        return self._stream.read(size)


def _tar_entries(archive: Path, tarred: tarfile.TarFile, limited: _LimitedReads) -> Iterator[Entry]:
    try:
        while (member := tarred.next()) is not None:
            limited.renew()  # no seek follows an entry without content
            tarred.members.clear()  # type: ignore[attr-defined]  # it keeps 1 kB per entry
            parts = _check_member(archive, member)
            if parts or not member.isdir():
                end = member.offset_data + member.size
                opener = cast(Callable[[], IO[bytes]], partial(tarred.extractfile, member))
                yield Entry(parts, member.isdir(), member.size, end, opener)
    except RecursionError as error:  # thousands of headers for one entry
        raise tarfile.ReadError("too many headers") from error


def _check_member(archive: Path | str, member: tarfile.TarInfo) -> tuple[str, ...]:
    """Check a tar member and return the parts of its path."""
    if member.issym() or member.islnk():
        kind = "a link"
    elif member.issparse():
        kind = "a sparse file"
    elif not (member.isreg() or member.isdir()):
        kind = "a device or a pipe" if member.isdev() else f"of an unknown type, {member.type!r}"
    elif member.size < 0:
        kind = "of a negative size"
    else:
        return _checked_parts(archive, member.name, member.name, is_folder=member.isdir())
    raise _refused(archive, member.name, f"is {kind}")


def _zip_entries(archive: Path, zipped: zipfile.ZipFile) -> Iterator[Entry]:
    end = 0
    for entry in zipped.infolist():
        kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 if it was not packed on Unix
        if entry.flag_bits & 0x1:
            raise _refused(archive, entry.orig_filename, "is encrypted")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a device or a pipe"
            raise _refused(archive, entry.orig_filename, f"is {what}")
        # zipfile truncates names at a NUL. Separators are slashes, but old .NET wrote backslashes.
        whole = entry.orig_filename if "\0" in entry.orig_filename else entry.filename
        name = whole.replace("\\", "/")
        is_folder = name.endswith("/")
        parts = _checked_parts(archive, name, whole, is_folder=is_folder)
        end += entry.file_size
        if parts:
            opener = partial(_opened, archive, zipped, entry)
            yield Entry(parts, is_folder, entry.file_size, end, opener)


def _opened(archive: Path, zipped: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return zipped.open(entry)
    except (NotImplementedError, RuntimeError) as error:  # Python lacks this compression method
        raise _refused(archive, entry.orig_filename, f"cannot be read: {error}") from error


def _checked_parts(
    archive: Path | str, name: str, as_it_stands: str, *, is_folder: bool
) -> tuple[str, ...]:
    """Return the parts of an entry's path, after checking that it stays inside the folder."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if "\0" in name:
        raise _refused(archive, as_it_stands, "has a NUL in its name")
    if name.startswith("/") or PureWindowsPath(name).anchor or ".." in re.split(r"[/\\]", name):
        raise _refused(archive, as_it_stands, "leads outside its folder")
    lengths = [len(os.fsencode(part)) for part in parts]
    if max(lengths, default=0) > LONGEST_NAME or sum(lengths) + len(parts) > LONGEST_PATH:
        raise _refused(archive, as_it_stands, "has a name that is too long")
    if not parts and not is_folder:
        raise _refused(archive, as_it_stands, "has no name")
    return parts


def _refused(archive: Path | str, name: str, why: str) -> UserError:
    return _rejected(archive, f"its entry {shown(name)} {why}; expected only files and folders")


def _rejected(archive: Path | str, why: str) -> UserError:
    return UserError(f"{archive} is rejected: {why}; unpack it yourself if you trust it")
