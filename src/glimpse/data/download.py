"""Download of archives with progress and a checksum, and unpacking of all files or none.

pooch downloads. This module adds `file://` URLs, error messages for users, and unpacking into a
temporary folder that is then renamed, under a lock, so that the next run repairs an interrupted
one. The checks of an archive's content are in archives.py.
"""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pooch

from glimpse.command import in_shell
from glimpse.data import archives
from glimpse.errors import UserError, first_line
from glimpse.files import locked, partial_folder
from glimpse.progress_bar import progress_bar

# The errors that zipfile and tarfile raise on a damaged archive, the last four for odd headers.
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, LookupError,
    NotImplementedError, struct.error,
)  # fmt: skip
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
DOWNLOAD_AGAIN = "delete it to download it again"


@dataclass(frozen=True)
class Archive:
    """A file on the network and its checksum, `sha256:…` or `md5:…`; None accepts any file."""

    url: str
    checksum: str | None

    @property
    def filename(self) -> str:
        """Return the last part of the URL."""
        return Path(urlsplit(self.url).path).name

    @property
    def is_packed(self) -> bool:
        """Whether its name is that of a zip or tar; a query may follow the name."""
        return self.filename.endswith(ARCHIVE_ENDINGS)

    @property
    def is_local(self) -> bool:
        """Whether the archive is a file on this machine, which is read in place."""
        return self.url.startswith("file://")

    @property
    def remedy(self) -> str:
        """What to do about a damaged copy, as text for the user."""
        return "copy it again" if self.is_local else DOWNLOAD_AGAIN


def fetch(archive: Archive, folder: Path) -> Path:
    """Return the path of the archive, downloading it to `folder` if necessary.

    It is not downloaded if it is already in `folder` or has a file:// URL.

    Raises:
        UserError: the archive cannot be downloaded, or does not match its checksum.
    """
    if archive.is_local:
        path = Path(url2pathname(urlsplit(archive.url).path))
        if not path.is_file():
            raise UserError(f"data.url={archive.url}: no such file; type the path of a file")
    else:
        path = folder / archive.filename
        if not path.is_file():
            _download(archive, path)
            return path
    if archive.checksum is not None:
        _verify(path, archive.checksum, archive.remedy)
    return path


def _verify(path: Path, checksum: str, remedy: str) -> None:
    algorithm, _, expected = checksum.partition(":")
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != expected.lower():
        sha256 = pooch.file_hash(str(path), alg="sha256")
        typed = in_shell(f"data.url={path.resolve().as_uri()}", f"data.sha256={sha256}")
        raise UserError(
            f"{path} is not the expected file ({algorithm} {found}, expected {expected}): "
            f"{remedy}, or type {typed} to use it"
        )


def _download(archive: Archive, path: Path) -> None:
    pooch.get_logger().setLevel("WARNING")
    print(f"downloading {archive.url}", flush=True)
    bar = progress_bar("downloading", None, unit="B")
    try:
        pooch.retrieve(
            archive.url,
            archive.checksum,
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(progressbar=bar, timeout=30),
        )
        # pooch leaves a temporary file's mode. Whoever may read the folder may read the download.
        path.chmod(path.parent.stat().st_mode & 0o666)
    except OSError as error:  # requests' errors are OSErrors too
        reason = type(error).__name__
        raise UserError(
            f"cannot download {archive.url} ({reason}): put the file at {path}, "
            "or type data.url=file:///<path of a copy>"
        ) from error
    except ValueError as error:  # pooch's error for a wrong checksum
        raise UserError(
            f"the download of {archive.url} is incomplete or damaged (its checksum differs): run "
            "the same command again"
        ) from error


def unpack(
    archive: Path, folder: Path, *, top: str | None = None, remedy: str = DOWNLOAD_AGAIN
) -> list[str]:
    """Unpack an archive's top-level entries into `folder`, keeping entries that already exist.

    Args:
        archive: A zip or tar.
        folder: The folder for its content.
        top: A folder in `folder` for all entries, if none of them has this name; None: no folder.
        remedy: What to do about a damaged archive, as text for the user.

    Returns:
        The names of the top-level entries.

    Raises:
        UserError: the file is not an archive, is damaged, or contains entries that are not allowed.
            In these cases, nothing is written.
    """
    try:
        num_entries = archives.survey(archive, folder)
        with whole_or_nothing(folder, archive.name) as unfinished:
            archives.extract(archive, unfinished, num_entries=num_entries)
            entries = sorted(unfinished.iterdir())
            names = [entry.name for entry in entries]
            if top is not None and top not in names:
                (unfinished / top).mkdir()
                for entry in entries:
                    entry.rename(unfinished / top / entry.name)
            return names
    except (*_DAMAGED, OSError) as error:
        if getattr(error, "errno", None):  # an error of the disk, not of the archive
            raise UserError(f"cannot unpack {archive} into {folder}: {error}") from error
        reason = first_line(error).rstrip(":")  # tarfile adds a line for each format
        raise UserError(
            f"cannot unpack {archive}: {archives.shown(reason)}; it may be damaged: {remedy}"
        ) from error


def one_at_a_time(folder: Path) -> AbstractContextManager[None]:
    """Hold a lock while this process downloads to `folder`; others wait and then check again."""
    return locked(folder / ".download.lock", partial(_not_written, folder))


def _not_written(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {folder}: {error.strerror}; type data_dir=<a writable folder>")


@contextmanager
def whole_or_nothing(folder: Path, name: str) -> Iterator[Path]:
    """Create a temporary folder whose entries move into `folder` at the end unless there is an
    error.

    A lock on `name` admits one process at a time.
    """
    lock = locked(folder / f".{name}.lock", partial(_not_written, folder))
    with lock, partial_folder(folder / f".{name}") as unfinished:
        yield unfinished
        entries = list(unfinished.iterdir())
        if [entry.name for entry in entries] == [folder.name]:  # packed with its folder
            entries = list(entries[0].iterdir())
        for entry in entries:
            place = folder / entry.name
            if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
                place.rmdir()
            if not place.exists():
                entry.rename(place)
