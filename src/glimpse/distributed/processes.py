"""Start the processes of a run if no launcher has, watch them, and end them together."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.distributed import (  # type: ignore[attr-defined]
    HashStore,
    PrefixStore,
    TCPStore,
)

from glimpse.config.explain import explain
from glimpse.distributed.place import Place, place_of, variables_of
from glimpse.distributed.team import (
    ASK_SECONDS,
    CONNECT_SECONDS,
    LEAVE_SECONDS,
    Team,
    TeammateError,
    connected,
)
from glimpse.errors import Interrupted, LostProcessError
from glimpse.records import FAILED, INTERRUPTED
from glimpse.threads import THREADS

# What gloo and NCCL say of a connection that another process no longer answers.
LOST = re.compile(
    r"/gloo/|[Cc]onnection (was )?(closed|reset|refused)|NCCL (error|communicator)|Broken pipe"
)

GRACE_SECONDS = 5  # after a failure elsewhere, for this process's own error to appear
SHORT_SECONDS = 2  # for the others to end, after an error or a signal
LOOK_SECONDS = 0.2  # between two checks of the others
SIGN_SECONDS = 1.0  # between two signs of life of a process
SILENT_SECONDS = 40.0  # without one, a process is suspended, or its machine cannot be reached
SILENT = (
    f"it has given no sign of life for {SILENT_SECONDS:g} s: it is suspended, or its machine cannot "
    "be reached; to resume, type resume=<run folder>"
)


@contextmanager
def gathered(
    message: dict[str, Any], num_processes: int, record_end: Callable[[str, str], None]
) -> Iterator[Team]:
    """The team of a run. If no launcher has started its processes, this starts them.

    At the end, no process is left and the environment is as before. An error that follows from
    another process's failure is replaced by that process's error.

    Args:
        message: What `Team.told` returns in the other processes.
        num_processes: The number of processes, including this one, if no launcher has started them.
        record_end: Called in the first process with a status and one line, before it gives up
            waiting for another process and exits. The status is "interrupted" if the other process
            was killed, else "failed".
    """
    variables = dict(os.environ)
    place = place_of(os.environ)
    others: list[subprocess.Popen[bytes]] = []
    if "exit" in message or (not place.launcher and num_processes == 1):
        if place.world_size > 1:
            connected(place).tell(**message)
        place = Place()
        team = Team(place, HashStore())
    elif place.launcher:
        team = connected(place)
    else:
        team, others = _start(num_processes)
    over, is_whole = threading.Event(), False
    try:
        if team.place.rank == 0 and team.place.world_size > 1:
            team.tell(**message)
            watch = (team, others, record_end, over)
            threading.Thread(target=_watch, args=watch, daemon=True).start()
        elif team.place.world_size > 1:
            threading.Thread(target=_give_signs, args=(team, over), daemon=True).start()
        with _own_end_told(team):
            yield team
            team.wait_for_all("end")
            is_whole = True
    finally:
        over.set()
        _leave(others, LEAVE_SECONDS if is_whole else SHORT_SECONDS)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(variables)


def _start(num_processes: int) -> tuple[Team, list[subprocess.Popen[bytes]]]:
    """Start the other processes on this machine. Each one ends when its input pipe closes."""
    # Port 0 stands for a free port.
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, multi_tenant=True)
    for name in [name for name in os.environ if name.startswith("TORCHELASTIC_")]:
        del os.environ[name]
    places = [Place(rank, num_processes, rank, num_processes) for rank in range(num_processes)]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port)}
    if THREADS not in os.environ:
        threads = max(1, torch.get_num_threads() // num_processes)
        torch.set_num_threads(threads)
        os.environ[THREADS] = str(threads)
    modules = os.pathsep.join(path or os.getcwd() for path in sys.path)
    command = [sys.executable, "-P", "-m", "glimpse.distributed.member"]
    others = []
    for place in places[1:]:
        environment = os.environ | variables_of(place) | {"PYTHONPATH": modules}
        others.append(
            subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
        )
    os.environ |= variables_of(places[0])
    return Team(places[0], PrefixStore("glimpse/0", server)), others


def _leave(others: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait for the started processes, and kill those that remain."""
    deadline = time.monotonic() + seconds
    for other in others:
        with suppress(subprocess.TimeoutExpired):
            other.wait(max(0.1, deadline - time.monotonic()))
    for other in others:
        assert other.stdin is not None
        other.kill()
        other.wait()
        other.stdin.close()


@contextmanager
def _own_end_told(team: Team) -> Iterator[None]:
    """Tell the others if this process ends early.

    If its error follows from the end of another process, raise that process's error instead.
    """
    rank = team.place.rank
    if team.place.world_size == 1:
        yield
        return
    try:
        yield
    except (TeammateError, LostProcessError):
        raise
    except BaseException as error:
        is_lost = _is_of_connection(error)
        if is_lost and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends those that are left
        deadline = time.monotonic() + (GRACE_SECONDS if is_lost else 0)
        while True:
            how = team.ended()
            follows = is_lost or (isinstance(error, Interrupted) and "signal" not in (how or {}))
            if how is not None and how["rank"] != rank and follows:
                _raise(team, how, error)
            if time.monotonic() >= deadline:
                break
            time.sleep(ASK_SECONDS)
        if is_lost:
            raise LostProcessError(
                "another process of this run ended without an error: it was killed, perhaps because "
                "memory ran out; type a smaller data.batch_size, or resume=<run folder>"
            ) from error
        if isinstance(error, Interrupted):
            team.end(rank, {"signal": error.signal_number})
        else:
            team.end(rank, {"error": explain(error)})
        raise


def _raise(team: Team, how: dict[str, Any], error: BaseException) -> None:
    if "signal" in how:
        raise Interrupted(how["signal"]) from error
    raise team.error(how) from error


def _is_of_connection(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, is a lost connection to another process."""
    while error is not None:
        if isinstance(error, torch.distributed.DistError):
            return True
        if isinstance(error, RuntimeError) and LOST.search(str(error)):
            return True
        error = error.__context__
    return False


def _watch(
    team: Team,
    others: Sequence[subprocess.Popen[bytes]],
    record_end: Callable[[str, str], None],
    over: threading.Event,
) -> None:
    """In the first process: detect that another one has ended or is silent.

    If this process then still waits for it, it exits.
    """
    silence = Silence()
    while not over.wait(LOOK_SECONDS):
        for rank, other in enumerate(others, 1):
            code = other.poll()
            if code:
                team.end(rank, {"error": _named_end(code), "is_lost": True})
        with suppress(RuntimeError):  # the server, torchrun's agent, has gone
            for rank in silence.of(team.signs(), LOOK_SECONDS):
                team.end(rank, {"error": SILENT, "is_lost": True})
        how = team.ended()
        if how is None or how["rank"] == 0 or over.wait(GRACE_SECONDS):
            continue
        if "signal" in how:  # this process is saving, or was told to stop as well
            continue
        record_end(INTERRUPTED if how.get("is_lost") else FAILED, team.cause(how))
        print(f"error: {team.cause(how)}", file=sys.stderr, flush=True)
        for other in others:
            other.kill()
        os._exit(1)


def _give_signs(team: Team, over: threading.Event) -> None:
    """In every process except the first: give signs of life."""
    with suppress(RuntimeError):  # the first one has gone
        while not over.wait(SIGN_SECONDS):
            team.give_sign()


class Silence:
    """How long each process has given no new sign of life while this process was watching."""

    def __init__(self) -> None:
        self._last: dict[int, str] = {}
        self._seconds: dict[int, float] = {}

    def of(self, signs: Mapping[int, str], seconds: float) -> list[int]:
        """The processes that have been silent too long, `seconds` after the last check.

        One that has given no sign yet may still be starting.
        """
        for rank, sign in signs.items():
            is_new = sign != self._last.get(rank)
            self._seconds[rank] = 0.0 if is_new else self._seconds[rank] + seconds
        self._last = dict(signs)
        limits = {rank: SILENT_SECONDS if sign else CONNECT_SECONDS for rank, sign in signs.items()}
        return [rank for rank, silent in self._seconds.items() if silent >= limits[rank]]


def _named_end(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", perhaps because memory ran out" if name == "SIGKILL" else ""
        return f"it was killed by {name}{memory}; to resume, type resume=<run folder>"
    return f"it ended with exit code {code}"
