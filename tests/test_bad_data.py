"""Bad data as the command meets it: one line that names the file, exit code 1, earlier results intact.

The command is train.py itself. Its imports take seconds, so one process makes them and forks for each
command; that torch is not imported too early is test_launch.py's to hold.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from PIL import Image

from conftest import REPOSITORY, slow
from makers import make_image_folder

SERVER = """
import json, os, runpy, sys, traceback
import glimpse.run, glimpse.data.sets.image_folder, glimpse.data.sets.csv_table, sklearn.model_selection
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    os.chdir(order["folder"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(order[name], os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    sys.argv = [order["script"], *order["arguments"]]
    code = 99
    try:
        runpy.run_path(order["script"], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Command:
    """train.py in some folder, started by a process that has imported all it needs."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.logs: dict[int, tuple[Path, Path]] = {}

    def start(self, *arguments: str) -> int:
        """Begin a run; returns its process id."""
        logs = tuple(self.folder / f"{len(self.logs)}.{name}" for name in ("out", "err"))
        order = {
            "folder": str(self.folder),
            "script": str(REPOSITORY / "train.py"),
            "arguments": ["model=linear", "trainer=cpu", "data.num_workers=1", *arguments],
            "out": str(logs[0]),
            "err": str(logs[1]),
        }
        pid = int(self._ask(order))
        self.logs[pid] = (logs[0], logs[1])
        return pid

    def wait(self, pid: int) -> Ended:
        """The end of a run."""
        code = int(self._ask({"wait": pid}))
        out, err = (log.read_text() for log in self.logs[pid])
        return Ended(code, out, err)

    def __call__(self, *arguments: str) -> Ended:
        return self.wait(self.start(*arguments))

    def _ask(self, order: dict[str, object]) -> str:
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return self.server.stdout.readline()


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    variables = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    variables |= {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def train(server: subprocess.Popen[str], tmp_path: Path) -> Command:
    return Command(server, tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_image_folder(tmp_path)
    return tmp_path / "photos"


def caches(folder: Path) -> dict[str, bytes]:
    """What the caches hold."""
    found = (folder / "data" / ".cache").rglob("*.*")
    return {str(p): p.read_bytes() for p in found if p.is_file() and p.suffix != ".lock"}


def told(ended: Ended, *what: str) -> None:
    """The run failed with one line that says all this."""
    assert ended.code == 1, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, ended.err
    for words in what:
        assert words in ended.err


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
    ("damage", "part"), [(truncated, "train"), (web_page, "val"), slow(bomb, "train")]
)
def test_an_image_that_cannot_be_read(
    train: Command, photos: Path, damage: Callable[[Path], None], part: str
) -> None:
    assert train(*LOOK).code == 0
    before = caches(train.folder)
    path = photos / part / "dog" / "dog_1.png"
    whole = path.read_bytes()
    damage(path)
    told(train(*LOOK), str(path.relative_to(train.folder)))
    assert caches(train.folder) == before
    skipping = train(*LOOK, "data.on_bad_file=skip", "check=false", "trainer.max_epochs=1")
    assert skipping.code == 0, skipping.err
    assert "1 unreadable file skipped" in skipping.out
    listed = skipping.out.split("unreadable file skipped (")[1].split(")")[0]
    assert f"{part}/dog/dog_1.png" in (train.folder / listed).read_text()
    path.write_bytes(whole)
    assert train(*LOOK).code == 0


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
    assert ended.code == 0, ended.err
    assert "val 4" in ended.out


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
    assert train("data=csv", "data.train=table.csv", "check=true").code == 0


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
    assert "cannot download" in first.err
    assert first.code == 1
    assert [line for line in first.err.splitlines() if line.startswith("Traceback")] == []
    assert (second.code, third.code) == (0, 0), second.err
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
    assert [run.code for run in ended] == [0, 0], ended
    # each part is decoded by one of them
    assert sum(run.out.count("decoding") for run in ended) == 2
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
    assert train.wait(pid).code == -signal.SIGKILL
    for number in range(20, 20_000):
        first.with_name(f"{number}.png").unlink()
    ended = train(*LOOK)
    assert ended.code == 0, ended.err
    assert "train 32" in ended.out


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
    assert ended.code == 0, ended.err
    assert "train 12" in ended.out
    assert not left.exists()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in a minute")
