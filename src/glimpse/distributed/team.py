"""The processes of a run: how they meet, agree, and learn that one of them has failed.

They communicate through a key-value store of torch. Under torchrun, its agent serves the store;
otherwise the first process does. They wait by polling, so that a signal or another process's
failure ends the wait; torch's own blocking wait reacts to neither. Training itself uses Lightning's
process group.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch.distributed import (  # type: ignore[attr-defined]
    HashStore,
    PrefixStore,
    Store,
    TCPStore,
)

from glimpse.config.explain import explain
from glimpse.distributed.place import Place, place_of, variables_of
from glimpse.errors import Interrupted, LostProcessError, UserError, first_line

CONNECT_SECONDS = 180  # to reach a first process that may start later than the others
AGENT_SECONDS = 30  # to reach torchrun's agent, which runs already
ASK_SECONDS = 0.05
GRACE_SECONDS = 5  # after a failure elsewhere, for this process's own error to appear
LEAVE_SECONDS = 15  # for the others to end by themselves
SHORT_SECONDS = 2  # the same, after an error or a signal
_Value = TypeVar("_Value")


class TeammateError(UserError):
    """Another process of the run has failed; the message is its cause."""


class Team:
    """The processes of a run.

    Args:
        place: Which of them this is.
        store: What they share.
    """

    def __init__(self, place: Place, store: Store) -> None:
        self.place = place
        self.has_told = False
        self._store = store

    # What to do ----------------------------------------------------------------------------------

    def tell(self, **message: Any) -> None:
        """From the first process: the run to take part in, or `exit`, the code to end with."""
        self.has_told = True
        self._store.set("told", json.dumps(message))

    def told(self) -> dict[str, Any]:
        """In another process: wait for what the first one tells."""
        self._wait(["told"])
        message: dict[str, Any] = json.loads(self._store.get("told"))
        self._store.set(f"heard/{self.place.rank}", "1")
        return message

    def dismiss(self, code: int, error: str) -> None:
        """From the first process, which runs nothing: let the others end with the same exit code."""
        self.tell(exit=code, error=error)
        others = [f"heard/{rank}" for rank in range(1, self.place.world_size)]
        deadline = time.monotonic() + LEAVE_SECONDS
        with suppress(RuntimeError):
            while not self._store.check(others) and time.monotonic() < deadline:
                time.sleep(ASK_SECONDS)

    def meet_after_restart(self, device: str) -> None:
        """Start the process group of the training anew after torchrun has restarted the processes.

        Otherwise, Lightning would start it, and torch 2.14 would find the addresses of the previous
        processes in the agent's store and try to reach them.
        """
        if _attempt() and self.place.launcher == "torchrun":
            torch.distributed.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                store=PrefixStore("training", self._store),
                rank=self.place.rank,
                world_size=self.place.world_size,
            )

    # Agreement -----------------------------------------------------------------------------------

    def agreed(self, name: str, decide: Callable[[], _Value]) -> _Value:
        """The first process's value of something that JSON can hold, in all processes."""
        if self.place.rank == 0:
            value = decide()
            self._store.set(f"agreed/{name}", json.dumps(value))
            return value
        self._wait([f"agreed/{name}"])
        found: _Value = json.loads(self._store.get(f"agreed/{name}"))
        return found

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block first in the first process, then once on every other node, then in the rest."""
        if self.place.rank:
            before = 0 if self.place.local_rank == 0 else self.place.node
            self._wait([f"done/{before}"])
        yield
        if self.place.local_rank == 0:
            self._store.set(f"done/{self.place.node}", "1")

    def wait_for_all(self, name: str) -> None:
        """Wait until every process is here."""
        self._store.set(f"{name}/{self.place.rank}", "1")
        self._wait([f"{name}/{rank}" for rank in range(self.place.world_size)])

    def _wait(self, keys: Sequence[str]) -> None:
        try:
            while not self._store.check(list(keys)):
                self.require_all()
                time.sleep(ASK_SECONDS)
        except RuntimeError as error:  # the server has gone
            raise TeammateError("the first process of the run ended unexpectedly") from error

    # Failure -------------------------------------------------------------------------------------

    def end(self, rank: int, how: dict[str, Any]) -> None:
        """Tell all processes that one has ended early, and how. The first one to end counts."""
        with suppress(RuntimeError):  # the server may have gone
            self._store.compare_set("ended", "", json.dumps({"rank": rank} | how))

    def ended(self) -> dict[str, Any] | None:
        """Which process has ended early, and how; None if none has."""
        try:
            if not self._store.check(["ended"]):
                return None
            found: dict[str, Any] = json.loads(self._store.get("ended"))
        except RuntimeError:
            return None
        return found

    def require_all(self) -> None:
        """Raise what ended another process early.

        Raises:
            TeammateError: it failed. `Interrupted`: it was told to stop.
        """
        how = self.ended()
        if how is not None and how["rank"] != self.place.rank:
            if "signal" in how:
                raise Interrupted(how["signal"])
            raise self.error(how)

    def error(self, how: dict[str, Any]) -> UserError:
        """What the end of another process means for this one."""
        kind = LostProcessError if how.get("is_lost") else TeammateError
        return kind(self.cause(how))

    def cause(self, how: dict[str, Any]) -> str:
        """One line on a process that ended early."""
        return f"process {how['rank']} of {self.place.world_size}: {how['error']}"


@cache
def connected(place: Place) -> Team:
    """The team of a process that a launcher, or the first process, started.

    Raises:
        UserError: nothing answers at the address.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = TCPStore(
            address,
            port,
            is_master=place.rank == 0 and not of_agent,
            timeout=timedelta(seconds=AGENT_SECONDS if of_agent else CONNECT_SECONDS),
            wait_for_workers=False,
            multi_tenant=True,  # Lightning's process group has its own store on this port
        )
    except RuntimeError as error:
        reason = first_line(error)
        raise UserError(
            f"the first process cannot be reached at MASTER_ADDR={address} MASTER_PORT={port} "
            f"({reason}): start all processes by one command, or type unset RANK WORLD_SIZE LOCAL_RANK "
            "LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT if another program left these"
        ) from error
    return Team(place, PrefixStore(f"glimpse/{_attempt()}", store))


def _attempt() -> int:
    """How often torchrun has restarted the processes (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def interrupted_folder(place: Place) -> str | None:
    """The run folder of the processes that torchrun started before these; None if these are the first."""
    if not _attempt() or place.launcher != "torchrun":
        return None
    store = connected(place)._store
    assert isinstance(store, PrefixStore)
    for attempt in reversed(range(_attempt())):
        before = PrefixStore(f"glimpse/{attempt}", store.underlying_store)
        if before.check(["told"]):
            folder = json.loads(before.get("told")).get("folder")
            return None if folder is None else str(folder)
    return None


# The processes of a run ------------------------------------------------------------------------------


@contextmanager
def gathered(
    message: dict[str, Any], num_processes: int, record_end: Callable[[str, str], None]
) -> Iterator[Team]:
    """The team of a run. Where no launcher has started its processes, this starts them.

    At the end, no process is left and the environment is as before. An error that follows from another
    process's failure becomes that process's.

    Args:
        message: What `Team.told` returns in the other processes.
        num_processes: How many to start, this one included, if no launcher has started them.
        record_end: Called with a status and one line before a process that waits in vain for
            another one is ended. The status is "interrupted" if the other one was killed, else
            "failed".
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
        with _own_end_told(team):
            yield team
            team.wait_for_all("end")
            is_whole = True
    finally:
        over.set()
        _leave(others, LEAVE_SECONDS if is_whole else SHORT_SECONDS)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        os.environ.clear()
        os.environ.update(variables)


def _start(num_processes: int) -> tuple[Team, list[subprocess.Popen[bytes]]]:
    """Start the other processes on this machine, each with a pipe whose end ends it."""
    server = TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, multi_tenant=True
    )  # on a free port
    for name in [name for name in os.environ if name.startswith("TORCHELASTIC_")]:
        del os.environ[name]
    places = [Place(rank, num_processes, rank, num_processes) for rank in range(num_processes)]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port)}
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, torch.get_num_threads() // num_processes)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)
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
    """Wait for the started processes, and end those that stay."""
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
    """Tell the others if this process ends early. If its error follows from another's end, raise that cause."""
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
    """Whether an error, or what it came from, is that another process could no longer be reached."""
    while error is not None:
        if isinstance(error, torch.distributed.DistError):
            return True
        text = str(error)
        if isinstance(error, RuntimeError) and ("gloo" in text or "onnection" in text):
            return True
        error = error.__context__
    return False


def _watch(
    team: Team,
    others: Sequence[subprocess.Popen[bytes]],
    record_end: Callable[[str, str], None],
    over: threading.Event,
) -> None:
    """In the first process: notice that another one has ended, and end this one if it waits in vain."""
    while not over.wait(0.2):
        for rank, other in enumerate(others, 1):
            code = other.poll()
            if code:
                team.end(rank, {"error": _named_end(code), "is_lost": True})
        how = team.ended()
        if how is None or how["rank"] == 0 or over.wait(GRACE_SECONDS):
            continue
        if "signal" in how:  # this process is saving, or was told to stop as well
            continue
        record_end("interrupted" if how.get("is_lost") else "failed", team.cause(how))
        print(f"error: {team.cause(how)}", file=sys.stderr, flush=True)
        for other in others:
            other.kill()
        os._exit(1)


def _named_end(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", perhaps because memory ran out" if name == "SIGKILL" else ""
        return f"it was killed by {name}{memory}; to resume, type resume=<run folder>"
    return f"it ended with exit code {code}"
