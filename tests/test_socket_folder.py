"""No folder of sockets is left behind, whichever process is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, os, signal, sys
from glimpse import socket_folder

def work(pipe):
    socket_folder.outlive_no_other()
    multiprocessing.connection.Listener(family="AF_UNIX")  # as for passing a batch
    pipe.send("ready")
    multiprocessing.parent_process().join()  # as torch's workers notice the end of the run

def kill(process):
    os.kill(process, signal.SIGKILL)

if __name__ == "__main__":
    socket_folder.share()
    socket_folder.share()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context(sys.argv[1])
    workers = [context.Process(target=work, args=(theirs,)) for _ in range(2)]
    for worker in workers:
        worker.start()
        ours.recv()
    if sys.argv[2] == "worker":
        kill(workers[0].pid)
        kill(workers[1].pid)
    else:
        kill(os.getpid())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
@pytest.mark.parametrize("killed", ["worker", "first"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_no_folder_is_left(method: str, killed: str, tmp_path: Path) -> None:
    script, temporary = tmp_path / "script.py", tmp_path / "t"
    script.write_text(PROGRAM)
    temporary.mkdir()
    ended = subprocess.run(  # its pipes close when the last process has ended
        [sys.executable, script, method, killed],
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == (0 if killed == "worker" else -9), ended.stderr
    assert list(temporary.iterdir()) == []
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python finds a shorter path itself")
def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    temporary = tmp_path / ("long" * 20)
    temporary.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", "from glimpse import socket_folder; socket_folder.share()"],
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert "UserError: the path of the temporary folder" in ended.stderr
    assert ended.stderr.endswith("bytes: type export TMPDIR=/tmp first\n")
    assert list(temporary.iterdir()) == []
