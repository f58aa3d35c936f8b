"""Archives: downloaded once with progress and a checksum, unpacked whole or not at all.

pooch downloads; this file adds `file://`, the words for what can go wrong, and unpacking to a
temporary folder that is renamed, under a lock, so that an interrupted start is repaired by the next.
What an archive may hold is in archives.py.
"""

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pooch
from filelock import FileLock

from glimpse.data import archives
from glimpse.errors import UserError

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


@dataclass(frozen=True)
class Archive:
    """A file on the network and its checksum, written `sha256:…` or `md5:…`; None takes any."""

    url: str
    checksum: str | None

    @property
    def filename(self) -> str:
        """The last part of the URL."""
        return Path(urlsplit(self.url).path).name


def fetch(archive: Archive, folder: Path) -> Path:
    """The archive's file: the one in `folder` or of a file:// URL, else downloaded to `folder`.

    Raises:
        UserError: it cannot be downloaded, or it is not the file that the checksum belongs to.
    """
    if archive.url.startswith("file://"):
        path = Path(url2pathname(urlsplit(archive.url).path))
        if not path.is_file():
            raise UserError(f"data.url={archive.url}: there is no such file")
    else:
        path = folder / archive.filename
        if not path.is_file():
            _download(archive, path)
            return path
    if archive.checksum is not None:
        verify(path, archive.checksum)
    return path


def verify(path: Path, checksum: str) -> None:
    """Check a file against `algorithm:hexdigest`.

    Raises:
        UserError: it is another file; the message says how to accept it.
    """
    algorithm, _, expected = checksum.partition(":")
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != expected.lower():
        sha256 = pooch.file_hash(str(path), alg="sha256")
        raise UserError(
            f"{path} is not the file expected ({algorithm} {found}, not {expected}): delete it to "
            f"download it again, or type data.url=file://{path.resolve()} data.sha256={sha256} to use it"
        )


def _download(archive: Archive, path: Path) -> None:
    pooch.get_logger().setLevel("WARNING")
    print(f"downloading {archive.url}", flush=True)
    try:
        pooch.retrieve(
            archive.url,
            archive.checksum,
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
        )
    except OSError as error:  # requests' errors are OSErrors too
        reason = type(error).__name__
        raise UserError(
            f"cannot download {archive.url} ({reason}): put the file at {path}, "
            "or name a copy with data.url=file:///…"
        ) from error
    except ValueError as error:  # the checksum of what came
        raise UserError(
            f"{archive.url} did not arrive whole (its checksum differs): run the same command again"
        ) from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive's top-level entries into `folder`; what is there already is kept.

    Raises:
        UserError: it is no archive, is damaged, or holds what is refused; nothing is written then.
    """
    try:
        num_entries = archives.survey(archive, folder)
        with whole_or_nothing(folder, archive.name) as partial:
            archives.extract(archive, partial, num_entries=num_entries)
    except (*_DAMAGED, OSError) as error:
        if getattr(error, "errno", None):  # of the disk, not of the archive
            raise UserError(f"cannot unpack {archive} into {folder}: {error}") from error
        reason = str(error).splitlines()[0].rstrip(":")  # tarfile adds a line for each format
        raise UserError(
            f"cannot unpack {archive}: {archives.shown(reason)}; is it damaged?"
        ) from error


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """While a process fetches files into `folder`, others wait; they look again afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".download.lock")
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}; type data_dir=<a folder you may write>"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_or_nothing(folder: Path, name: str) -> Iterator[Path]:
    """A new folder whose entries move into `folder` at the end, unless there was an error.

    One process at a time makes `name`; what a killed one left is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        for leftover in folder.glob(f".{name}.partial-*"):
            shutil.rmtree(leftover)
        partial = folder / f".{name}.partial-{os.getpid()}"
        partial.mkdir()
        try:
            yield partial
            entries = list(partial.iterdir())
            if [entry.name for entry in entries] == [folder.name]:  # packed with its folder
                entries = list(entries[0].iterdir())
            for entry in entries:
                if not (folder / entry.name).exists():
                    entry.rename(folder / entry.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
