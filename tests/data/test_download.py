"""Archives come whole and unpack inside their folder, or one line says why not."""

import errno
import gc
import gzip
import hashlib
import io
import os
import shlex
import shutil
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from glimpse.config.compose import composed
from glimpse.data import archives
from glimpse.data.download import Archive, fetch, unpack
from glimpse.data.sets.image_folder import ImageFolder
from glimpse.errors import UserError

CONTENT = {
    "set/one.txt": b" ".join(b"%d" % number**3 for number in range(20_000)),
    "set/more/two.txt": b"two",
}


def zip_of(content: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in content.items():
            zipped.writestr(name, data)
    return path


def tar_of(content: dict[str, bytes], path: Path) -> Path:
    compression = path.suffix.lstrip(".")
    with tarfile.open(path, "w" if compression == "tar" else f"w:{compression}") as tarred:
        for name, data in content.items():
            add_file(tarred, name, data)
    return path


def add_file(tarred: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tarred.addfile(member, io.BytesIO(data))


def add_link(tarred: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    tarred.addfile(member)


def make(path: Path, content: dict[str, bytes] = CONTENT) -> Path:
    return (zip_of if path.suffix == ".zip" else tar_of)(content, path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without locks."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {n: path.read_bytes() for n, path in found.items() if not n.endswith(".lock")}


# file:// ----------------------------------------------------------------------------------------


def test_a_file_url_is_used_in_place(tmp_path: Path) -> None:
    source = make(tmp_path / "my set.zip")
    archive = Archive(source.as_uri(), f"sha256:{sha256(source)}")
    assert fetch(archive, tmp_path / "data") == source
    assert not (tmp_path / "data").exists()  # nothing is copied


def test_a_file_url_to_nothing_is_told(tmp_path: Path) -> None:
    url = (tmp_path / "none.zip").as_uri()
    with pytest.raises(UserError, match=r"data\.url=file://.*none\.zip: no such file"):
        fetch(Archive(url, "sha256:0"), tmp_path)


@pytest.mark.parametrize("folder", ["plain", "a b, #1? (100%) ü"])
def test_another_file_is_refused_with_what_to_type_to_use_it(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    source = make(tmp_path / folder / "set.zip")
    with pytest.raises(UserError) as error:
        fetch(Archive(source.as_uri(), "md5:90528d7ca1a48142e341f4ef8d21d0de"), tmp_path)
    message = str(error.value)
    assert f"data.sha256={sha256(source)}" in message
    assert f"data.url={source.as_uri()}" in message
    assert "copy it again" in message  # and not to download it, which would delete the user's file
    assert "90528d7ca1a48142e341f4ef8d21d0de" in message
    words = shlex.split(message[message.index("type ") : message.index(" to use it")])
    data = composed(["data=cifar10", *words[1:]]).data
    archive = Archive(data.url, f"sha256:{data.sha256}")
    assert fetch(archive, tmp_path) == source


def test_a_checksum_in_capitals_is_the_same(tmp_path: Path) -> None:
    source = make(tmp_path / "set.zip")
    archive = Archive(source.as_uri(), f"sha256:{sha256(source).upper()}")
    assert fetch(archive, tmp_path) == source


# http:// ----------------------------------------------------------------------------------------


class Server:
    """Serves one body on 127.0.0.1; `cut` of its bytes never come."""

    def __init__(self, body: bytes) -> None:
        self.body, self.cut, self.status, self.num_requests = body, 0, 200, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                outer.num_requests += 1
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body[: len(outer.body) - outer.cut])

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/set.zip"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Server(make(tmp_path / "set.zip").read_bytes())
    thread = threading.Thread(target=served.http.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.http.shutdown()
    served.http.server_close()
    thread.join(timeout=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pooch leaves a broken connection open
        gc.collect()


@pytest.fixture
def remote(server: Server) -> Archive:
    return Archive(server.url, f"sha256:{hashlib.sha256(server.body).hexdigest()}")


@pytest.mark.timeout(60)
def test_a_download_is_kept_and_not_repeated(
    server: Server, remote: Archive, tmp_path: Path
) -> None:
    for _ in range(2):
        path = fetch(remote, tmp_path / "data")
        assert path == tmp_path / "data" / "set.zip"
        assert path.read_bytes() == server.body
    assert server.num_requests == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_download_is_for_all_who_may_read_its_folder(
    remote: Archive, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        path = fetch(remote, tmp_path / "data")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.timeout(60)
def test_a_query_may_follow_the_name_of_an_archive(server: Server, tmp_path: Path) -> None:
    server.body = make(
        tmp_path / "photos.zip", {"set/a/1.jpg": b"", "set/b/2.jpg": b""}
    ).read_bytes()
    ImageFolder(
        root=str(tmp_path / "mine" / "set"),
        data_dir=str(tmp_path),
        seed=0,
        batch_size=1,
        val_fraction=0.1,
        url=f"{server.url}?dl=1",
        sha256=hashlib.sha256(server.body).hexdigest(),
    ).require_files()
    assert (tmp_path / "mine" / "set" / "a" / "1.jpg").is_file()


@pytest.mark.timeout(60)
def test_a_download_that_was_cut_off_is_repaired_by_the_next(
    server: Server, remote: Archive, tmp_path: Path
) -> None:
    server.cut = 500
    with pytest.raises(UserError, match="cannot download") as error:
        fetch(remote, tmp_path / "data")
    assert len(str(error.value).splitlines()) == 1
    assert contents(tmp_path / "data") == {}
    server.cut = 0
    assert fetch(remote, tmp_path / "data").read_bytes() == server.body


@pytest.mark.timeout(60)
def test_a_download_of_something_else_is_repaired_by_the_next(
    server: Server, remote: Archive, tmp_path: Path
) -> None:
    body, server.body = server.body, b"<html>come back tomorrow</html>"
    with pytest.raises(UserError, match="checksum differs"):
        fetch(remote, tmp_path / "data")
    assert contents(tmp_path / "data") == {}
    server.body = body
    assert fetch(remote, tmp_path / "data").read_bytes() == body


@pytest.mark.timeout(60)
def test_a_server_that_refuses_is_told_with_what_to_type(
    server: Server, remote: Archive, tmp_path: Path
) -> None:
    server.status = 404
    with pytest.raises(UserError, match=r"data\.url=file:") as error:
        fetch(remote, tmp_path / "data")
    assert server.url in str(error.value)
    assert str(tmp_path / "data" / "set.zip") in str(error.value)


# Unpacking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_unpacking(tmp_path: Path, name: str) -> None:
    unpack(make(tmp_path / name), tmp_path / "data")
    assert contents(tmp_path / "data") == CONTENT


def test_unpacking_goes_on_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", refused)
    unpack(make(tmp_path / "a.zip"), tmp_path / "data")
    assert contents(tmp_path / "data") == CONTENT


def test_what_is_there_already_is_kept(tmp_path: Path) -> None:
    (tmp_path / "data" / "set").mkdir(parents=True)
    (tmp_path / "data" / "set" / "mine.txt").write_text("mine")
    unpack(make(tmp_path / "a.zip", {**CONTENT, "other/x": b"x"}), tmp_path / "data")
    assert contents(tmp_path / "data") == {"set/mine.txt": b"mine", "other/x": b"x"}


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "data" / ".a.zip.partial-99999" / "set"
    leftover.mkdir(parents=True)
    (leftover / "one.txt").write_bytes(b"half")
    unpack(make(tmp_path / "a.zip"), tmp_path / "data")
    assert contents(tmp_path / "data") == CONTENT
    assert not leftover.parent.exists()


def refusal(archive: Path, folder: Path) -> str:
    """What is said of an archive that is refused; of which nothing is left, not even its folder."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        unpack(archive, folder)
    assert str(error.value).isprintable()
    assert str(archive) in str(error.value)
    assert sorted(folder.parent.rglob("*")) == before
    return str(error.value)


BAD_NAMES = {
    "set/../../evil": "leads outside its folder",
    "/tmp/evil": "leads outside its folder",
    "C:evil": "leads outside its folder",
    "C:\\evil": "leads outside its folder",
    "\\\\server\\share\\evil": "leads outside its folder",
    "set\\..\\..\\evil": "leads outside its folder",
    "set/\x1b[2J\n../../evil\r": "leads outside its folder",
    "a" * 256: "a name that is too long",
    "ab/" * 400 + "c": "a name that is too long",
}


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_folder_or_do_not_fit_are_refused(
    tmp_path: Path, name: str, make: Callable[[dict[str, bytes], Path], Path]
) -> None:
    archive = make({"ok.txt": b"", name: b"!"}, tmp_path / ("a.zip" if make is zip_of else "a.tar"))
    assert BAD_NAMES[name] in refusal(archive, tmp_path / "data")


def test_the_folder_itself_may_be_an_entry(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        member = tarfile.TarInfo("./")
        member.type = tarfile.DIRTYPE
        tarred.addfile(member)
        add_file(tarred, "./set/one.txt", b"1")
    unpack(tmp_path / "a.tar", tmp_path / "data")
    assert contents(tmp_path / "data") == {"set/one.txt": b"1"}


def test_a_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    archive = zip_of({"ok.txtXevil": b"!"}, tmp_path / "a.zip")
    archive.write_bytes(archive.read_bytes().replace(b"txtXevil", b"txt\0evil"))
    assert r"its entry ok.txt\x00evil has a NUL" in refusal(archive, tmp_path / "data")


def test_backslashes_of_a_zip_from_windows_are_folders(tmp_path: Path) -> None:
    unpack(zip_of({"set\\cat\\1.png": b"1"}, tmp_path / "a.zip"), tmp_path / "data")
    assert contents(tmp_path / "data") == {"set/cat/1.png": b"1"}


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.FIFOTYPE, "a device or a pipe"),
        (tarfile.CHRTYPE, "a device or a pipe"),
        (tarfile.BLKTYPE, "a device or a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "of an unknown type"),
    ],
)
@pytest.mark.parametrize("target", ["ok.txt", "../../victim", "/etc/passwd"])
def test_a_tar_holds_files_and_folders_only(
    tmp_path: Path, kind: bytes, what: str, target: str
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        add_file(tarred, "ok.txt", b"fine")
        add_link(tarred, "set/\x1b[31mred", target, kind)
    message = refusal(tmp_path / "a.tar", tmp_path / "data")
    assert rf"its entry set/\x1b[31mred is {what}" in message


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o060644, 0o140644])
def test_a_zip_holds_files_and_folders_only(tmp_path: Path, mode: int) -> None:
    entry = zipfile.ZipInfo("set")
    entry.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(entry, str(tmp_path / "victim"))
    what = "a link" if mode == 0o120777 else "a device or a pipe"
    assert f"its entry set is {what}" in refusal(tmp_path / "a.zip", tmp_path / "data")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zip_of({"secret.txt": b"!"}, tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "its entry secret.txt is encrypted" in refusal(archive, tmp_path / "data")


def test_a_chain_of_links_and_long_names_writes_nothing_outside(tmp_path: Path) -> None:
    """CVE-2025-4517, which Python 3.11's own filter lets through."""
    folder, letters = "d" * 247, "abcdefghijklmnop"
    (tmp_path / "victim").write_bytes(b"precious")
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        path = ""
        for letter in letters:
            member = tarfile.TarInfo(f"{path}{folder}")
            member.type = tarfile.DIRTYPE
            tarred.addfile(member)
            add_link(tarred, f"{path}{letter}", folder, tarfile.SYMTYPE)
            path += f"{folder}/"
        chain = f"{'/'.join(letters)}/{'l' * 254}"
        add_link(tarred, chain, "../" * len(letters), tarfile.SYMTYPE)
        add_link(tarred, "escape", f"{chain}/../..", tarfile.SYMTYPE)
        add_link(tarred, "hard", "escape/victim", tarfile.LNKTYPE)
        add_file(tarred, "hard", b"overwritten")
    assert "its entry a is a link" in refusal(tmp_path / "a.tar", tmp_path / "data")
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_a_bomb_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "LARGE", 2**20)
    monkeypatch.setattr(archives, "extract", None)
    content = {f"{number}.csv": b"0" * 2**20 for number in range(4)}
    archive = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for entry, data in content.items():
                zipped.writestr(entry, data)
    else:
        tar_of(content, archive)
    assert "decompression bomb" in refusal(archive, tmp_path / "data")


def test_a_bomb_of_terabytes_is_refused_by_its_first_header(tmp_path: Path) -> None:
    member = tarfile.TarInfo("zeros.csv")
    member.size = 2**40
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(member.tobuf() + bytes(2**20)))
    assert "unpack to 1,099,511,629,312 or more" in refusal(archive, tmp_path / "data")


def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**33 - 1
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(member.tobuf() + bytes(2**20)))
    assert "a header of more than 1,048,576 bytes" in refusal(archive, tmp_path / "data")


def test_empty_files_are_no_header(tmp_path: Path) -> None:
    """Python reads their headers one after another, without a seek between them."""
    names = [f"set/{i}" for i in range(3000)]  # their headers together are longer than the limit
    unpack(tar_of(dict.fromkeys(names, b""), tmp_path / "a.tar.gz"), tmp_path / "data")
    assert sorted(contents(tmp_path / "data")) == sorted(names)


def test_entries_and_bytes_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(tmp_path / "a.zip")
    with monkeypatch.context() as limits:
        limits.setattr(archives, "MOST_ENTRIES", 1)
        assert "more than 1 entries" in refusal(archive, tmp_path / "data")
    with monkeypatch.context() as limits:
        limits.setattr(archives, "MOST_BYTES", 1000)
        assert "unpacks to more than" in refusal(archive, tmp_path / "data")


def test_a_disk_without_room_is_told_before_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    assert "free some space there" in refusal(make(tmp_path / "a.tar.gz"), tmp_path / "data")


def test_text_that_packs_well_is_no_bomb(tmp_path: Path) -> None:
    table = {"set.csv": b"label," + b"0," * 2**20}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("set.csv", table["set.csv"])
    unpack(tmp_path / "a.zip", tmp_path / "data")
    assert contents(tmp_path / "data") == table


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = {"inner.zip": make(tmp_path / "inner.zip").read_bytes()}
    unpack(tar_of(inner, tmp_path / "a.tar"), tmp_path / "data")
    assert contents(tmp_path / "data") == inner


def test_of_two_entries_of_one_name_the_later_stays(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        add_file(tarred, "one.txt", b"earlier and longer")
        add_file(tarred, "one.txt", b"later")
    unpack(tmp_path / "a.tar", tmp_path / "data")
    assert contents(tmp_path / "data") == {"one.txt": b"later"}


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwrite(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + b"\xff" * 64 + content[middle + 64 :]


def web_page(_: bytes) -> bytes:
    return b"<html>no such file</html>"


def nothing(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in ("a.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2")
        for damage in (cut, overwrite, web_page, nothing)
        # gzip's checksum comes after the end of the tar, unread; `fetch` has checked the file
        if (name, damage) != ("a.tar.gz", overwrite)
    ],
)
def test_a_damaged_archive_is_named_and_leaves_nothing(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    archive = make(tmp_path / name)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(UserError, match="cannot unpack") as error:
        unpack(archive, tmp_path / "data")
    assert str(archive) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert contents(tmp_path / "data") == {}


@pytest.mark.timeout(60)
def test_of_two_runs_one_downloads_and_the_other_waits(server: Server, tmp_path: Path) -> None:
    server.body = zip_of({"photos/cat/1.png": b"not read here"}, tmp_path / "p.zip").read_bytes()
    root = tmp_path / "data" / "photos"

    def prepare() -> None:
        sums = hashlib.sha256(server.body).hexdigest()
        ImageFolder(
            root=str(root),
            data_dir=str(tmp_path),
            seed=0,
            batch_size=1,
            val_fraction=0.1,
            url=server.url,
            sha256=sums,
        ).require_files()

    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (root / "cat" / "1.png").exists()
    assert server.num_requests == 1
