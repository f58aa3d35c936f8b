"""Commands in processes of their own, forked from one process that has already made the slow imports.

What a command imports before a mistake is reported is test_launch.py's to hold, with fresh processes.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

SERVER = """
import json, os, runpy, signal, sys, traceback
import glimpse.run, glimpse.data.sets.image_folder, glimpse.data.sets.csv_table, sklearn.model_selection
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where nohup started the tests
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
    os.environ.update(order["variables"])
    for number, name in enumerate((os.devnull, *order["logs"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    sys.argv = order["command"]
    code = 99
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


def environment(**variables: str) -> dict[str, str]:
    """The variables of this process, with others, for a command in one thread."""
    kept = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    return kept | {"OMP_NUM_THREADS": "1"} | variables


class Preloaded:
    """Starts Python scripts without the seconds that their imports take; `logs` receives their output."""

    def __init__(self, logs: Path) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env=environment(NO_PROXY="127.0.0.1", no_proxy="127.0.0.1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.logs = logs
        self.started: dict[int, tuple[list[str], list[Path]]] = {}
        self.running: set[int] = set()

    def start(self, folder: Path, *command: str, **variables: str) -> int:
        """Begin `python <command>` in `folder`, with `variables` set; returns the process id."""
        logs = [self.logs / f"{len(self.started)}.{name}" for name in ("out", "err")]
        for log in logs:
            log.touch()
        pid = self._ask(
            folder=str(folder), command=command, variables=variables, logs=[*map(str, logs)]
        )
        self.started[pid] = ([*command], logs)
        self.running.add(pid)
        return pid

    def wait(self, pid: int) -> subprocess.CompletedProcess[str]:
        """How a command that was started ended. If the test's time is over before, the command is killed."""
        try:
            code = self._ask(wait=pid)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            self._answer()
            raise
        finally:
            self.running.discard(pid)
        return subprocess.CompletedProcess(self.started[pid][0], code, *self.printed(pid))

    def printed(self, pid: int) -> list[str]:
        """What a command has written until now: its output and its errors."""
        return [log.read_text() for log in self.started[pid][1]]

    def run(
        self, folder: Path, *command: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """`python <command>` in `folder`, to its end."""
        return self.wait(self.start(folder, *command, **variables))

    def close(self) -> None:
        """End the process that imported, and commands that nobody waited for."""
        for pid in self.running:
            os.kill(pid, signal.SIGKILL)
        self.server.communicate()

    def _ask(self, **order: object) -> int:
        assert self.server.stdin
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self.server.stdout
        return int(self.server.stdout.readline())
