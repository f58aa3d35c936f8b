"""Bad data as the command meets it: one line that names the file, exit code 1, earlier results intact."""

import hashlib
import io
import json
import os
import shutil
import signal
import tarfile
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from threading import Thread

import pytest
from PIL import Image

from conftest import TRAIN, slow
from makers import make_image_folder
from preloaded import Preloaded


class Command:
    """`python train.py` in a folder, with a small model."""

    def __init__(self, preloaded: Preloaded, folder: Path) -> None:
        self.preloaded = preloaded
        self.folder = folder

    def start(self, *arguments: str) -> int:
        """Begin a run; returns its process id."""
        small = ("model=linear", "trainer=cpu", "data.num_workers=1")
        return self.preloaded.start(self.folder, TRAIN, *small, *arguments)

    def wait(self, pid: int) -> CompletedProcess[str]:
        """The end of a run."""
        return self.preloaded.wait(pid)

    def __call__(self, *arguments: str) -> CompletedProcess[str]:
        return self.wait(self.start(*arguments))


@pytest.fixture
def train(preloaded: Preloaded, tmp_path: Path) -> Command:
    return Command(preloaded, tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_image_folder(tmp_path)
    return tmp_path / "photos"


def caches(folder: Path) -> dict[str, bytes]:
    """What the caches hold."""
    found = (folder / "data" / ".cache").rglob("*.*")
    return {str(p): p.read_bytes() for p in found if p.is_file() and p.suffix != ".lock"}


def told(ended: CompletedProcess[str], *what: str) -> None:
    """The run failed with one line that says all this."""
    assert ended.returncode == 1, ended
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    for words in what:
        assert words in ended.stderr


LOOK = ("data=image_folder", "data.root=photos", "check=true")


# Images -----------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")


def bomb(path: Path) -> None:
    """20,000×10,000 grey pixels in a PNG of 200 kB."""
    Image.new("L", (20_000, 10_000)).save(path)


@pytest.mark.parametrize(
    ("damage", "part"), [(truncated, "train"), slow(web_page, "val"), slow(bomb, "train")]
)
def test_an_image_that_cannot_be_read(
    train: Command, photos: Path, damage: Callable[[Path], None], part: str
) -> None:
    assert train(*LOOK).returncode == 0
    before = caches(train.folder)
    path = photos / part / "dog" / "dog_1.png"
    whole = path.read_bytes()
    damage(path)
    told(train(*LOOK), str(path.relative_to(train.folder)))
    assert caches(train.folder) == before
    skipping = train(*LOOK, "data.on_bad_file=skip", "check=false", "trainer.max_epochs=1")
    assert skipping.returncode == 0, skipping.stderr
    assert "1 unreadable file skipped" in skipping.stdout
    listed = skipping.stdout.split("unreadable file skipped (")[1].split(")")[0]
    assert f"{part}/dog/dog_1.png" in (train.folder / listed).read_text()
    path.write_bytes(whole)
    assert train(*LOOK).returncode == 0


def test_bad_files_are_not_skipped_without_the_cache(train: Command, photos: Path) -> None:
    told(train(*LOOK, "data.on_bad_file=skip", "data.cache=false"), "type data.cache=true")


def test_a_class_none_of_whose_images_can_be_read(train: Command, photos: Path) -> None:
    for path in (photos / "train" / "dog").iterdir():
        web_page(path)
    told(train(*LOOK, "data.on_bad_file=skip"), "no image of the class dog can be read")


# Folders ----------------------------------------------------------------------------------------


def test_a_validation_folder_that_lacks_a_class(train: Command, photos: Path) -> None:
    shutil.rmtree(photos / "val" / "cat")
    ended = train(*LOOK, "check=false", "trainer.max_epochs=1")
    assert ended.returncode == 0, ended.stderr
    assert "val 4" in ended.stdout


def test_a_validation_folder_with_an_unknown_class(train: Command, photos: Path) -> None:
    (photos / "val" / "owl").rename(photos / "val" / "eagle")
    told(train(*LOOK), "photos/val/eagle", "not a class of the training set (cat, dog, owl)")


@pytest.mark.parametrize(("root", "meant"), [(".", "photos"), ("photos/train/cat", "photos/train")])
def test_a_root_one_level_too_high_or_low(
    train: Command, photos: Path, root: str, meant: str
) -> None:
    told(
        train(*LOOK, f"data.root={root}"),
        f"data.root={root}: expected two or more class folders",
        f"did you mean data.root={meant}?",
    )


def test_an_empty_class_folder(train: Command, photos: Path) -> None:
    (photos / "train" / "emu").mkdir()
    told(train(*LOOK), "photos/train/emu", "the class emu has no images")


# Tables -----------------------------------------------------------------------------------------

ROW = ",".join(["7"] * 64)  # 8×8
HEADER = "label," + ",".join(f"pixel{i + 1}" for i in range(64))
GOOD = [HEADER, *(f"{i % 3},{ROW}" for i in range(30))]


@pytest.mark.parametrize(
    ("line", "content", "message"),
    [
        (5, f"-1,{ROW}", "line 5: the label '-1' is not one of the 3 classes"),
        (5, f"-100,{ROW}", "line 5: the label '-100' is not one of"),
        (5, f"3,{ROW}", "line 5: the label '3' is not one of the 3 classes"),
        (5, f"1,,{ROW[2:]}", "line 5: pixel1 is '', expected an integer from 0 to 255"),
        (5, f",{ROW}", "line 5: the column 'label' is empty"),
        (5, f"1,seven,{ROW[2:]}", "line 5: pixel1 is 'seven'"),
        (5, f"1,256,{ROW[2:]}", "line 5: pixel1 is '256'"),
        (5, f"1,{ROW[2:]}", "line 5: 64 cells, expected 65"),
        (1, HEADER.replace("pixel2,", "pixel1,"), "line 1: duplicate column 'pixel1'"),
    ],
)
def test_a_fault_in_a_table(train: Command, line: int, content: str, message: str) -> None:
    lines = list(GOOD)
    lines[line - 1] = content
    (train.folder / "table.csv").write_text("\n".join(lines))
    arguments = ("data=csv", "data.train=table.csv", "data.class_names=[a,b,c]", "check=true")
    told(train(*arguments), "table.csv", message)


def test_a_table_with_the_mark_of_excel(train: Command) -> None:
    (train.folder / "table.csv").write_bytes(b"\xef\xbb\xbf" + "\n".join(GOOD).encode())
    assert train("data=csv", "data.train=table.csv", "check=true").returncode == 0


# Archives ---------------------------------------------------------------------------------------


@pytest.fixture
def packed(photos: Path) -> Path:
    """photos.zip in place of photos/."""
    archive = photos.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(photos.rglob("*.png")):
            zipped.write(path, path.relative_to(photos.parent))
    shutil.rmtree(photos)
    return archive


def from_archive(archive: Path, url: str) -> tuple[str, ...]:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return (*LOOK, "data.root=data/photos", f"data.url={url}", f"data.sha256={sha256}")


def test_a_download_that_was_cut_off_is_repaired_by_the_next(train: Command, packed: Path) -> None:
    body = packed.read_bytes()
    num_requests = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal num_requests
            num_requests += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: -500 if num_requests == 1 else None])

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        arguments = from_archive(packed, f"http://127.0.0.1:{http.server_port}/photos.zip")
        first, second, third = train(*arguments), train(*arguments), train(*arguments)
        http.shutdown()
        thread.join()
    assert "cannot download" in first.stderr
    assert first.returncode == 1
    assert [line for line in first.stderr.splitlines() if line.startswith("Traceback")] == []
    assert (second.returncode, third.returncode) == (0, 0), second.stderr
    assert num_requests == 2


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "hard link"])
def test_entries_that_leave_the_folder_write_nothing(train: Command, kind: str) -> None:
    outside = train.folder / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    archive = train.folder / "evil.tar"
    with tarfile.open(archive, "w") as tarred:
        names = {"parent": "photos/../../outside/evil", "absolute": f"{outside}/evil"}
        entry = tarfile.TarInfo(names.get(kind, "photos/evil"))
        if "link" in kind:
            link = tarfile.TarInfo("photos" if kind == "link" else "photos/evil")
            link.type = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE
            link.linkname = str(outside if kind == "link" else outside / "mine.txt")
            tarred.addfile(link)
        entry.size = 1
        tarred.addfile(entry, io.BytesIO(b"!"))
    told(train(*from_archive(archive, archive.as_uri())), "evil.tar")
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]
    assert (outside / "mine.txt").read_text() == "mine"
    assert not (train.folder / "data" / "photos").exists()


# Processes --------------------------------------------------------------------------------------


def test_two_runs_prepare_the_same_data(train: Command, packed: Path) -> None:
    arguments = (*from_archive(packed, packed.as_uri()), "check=false", "trainer.max_epochs=1")
    ended = [train.wait(pid) for pid in [train.start(*arguments) for _ in range(2)]]
    assert [run.returncode for run in ended] == [0, 0], ended
    # each part is decoded by one of them
    assert sum(run.stdout.count("decoding") for run in ended) == 2
    summaries = list((train.folder / "outputs").glob("*/*/summary.json"))
    assert [json.loads(path.read_text())["status"] for path in summaries] == ["finished"] * 2


def test_a_run_killed_while_it_fills_the_cache_is_completed_by_the_next(
    train: Command, photos: Path
) -> None:
    first = photos / "train" / "cat" / "cat_0.png"
    for number in range(20_000):  # which take many seconds, so that the kill comes in time
        os.link(first, first.with_name(f"{number}.png"))
    pid = train.start(*LOOK)
    cache = train.folder / "data" / ".cache"
    wait_for(lambda: any(cache.glob("*.partial-*/train.npy")))
    os.kill(pid, signal.SIGKILL)
    assert train.wait(pid).returncode == -signal.SIGKILL
    for number in range(20, 20_000):
        first.with_name(f"{number}.png").unlink()
    ended = train(*LOOK)
    assert ended.returncode == 0, ended.stderr
    assert "train 32" in ended.stdout


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are listed in /proc")
def test_the_processes_that_decode_end_with_a_killed_run(train: Command, photos: Path) -> None:
    folder = photos / "train" / "cat"
    for number in range(20_000):  # which take many seconds
        os.link(folder / "cat_0.png", folder / f"{number}.png")
    pid = train.start(*LOOK, "data.num_workers=2")
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(lambda: len(listed.read_text().split()) >= 3)  # with multiprocessing's own helper
    children = [Path("/proc") / child for child in listed.read_text().split()]
    os.kill(pid, signal.SIGKILL)
    train.wait(pid)
    wait_for(lambda: not any(child.exists() for child in children))


def test_a_run_killed_while_it_unpacks_is_completed_by_the_next(
    train: Command, packed: Path
) -> None:
    # what a killed unpacking leaves: half of the folder under a temporary name
    left = train.folder / "data" / ".photos.zip.partial-99999" / "photos" / "train" / "cat"
    left.mkdir(parents=True)
    (left / "cat_0.png").write_bytes(b"half")
    ended = train(*from_archive(packed, packed.as_uri()))
    assert ended.returncode == 0, ended.stderr
    assert "train 12" in ended.stdout
    assert not left.exists()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in a minute")
