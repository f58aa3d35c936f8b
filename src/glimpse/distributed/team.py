"""How the processes of a run meet, agree, and tell each other that one has failed.

They communicate through a key-value store of torch. Under torchrun, its agent serves the store;
otherwise the first process does. They wait by polling, so that a signal or another process's
failure ends the wait; torch's own blocking wait reacts to neither. Training itself uses Lightning's
process group. processes.py starts and ends the processes.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch.distributed import (  # type: ignore[attr-defined]
    PrefixStore,
    Store,
    TCPStore,
)

from glimpse.distributed.place import TORCHRUN, Place, num_restarts
from glimpse.errors import Interrupted, LostProcessError, UserError, first_line

CONNECT_SECONDS = 180  # to reach a first process that may start later than the others
AGENT_SECONDS = 30  # to reach torchrun's agent, which runs already
ASK_SECONDS = 0.05
LEAVE_SECONDS = 15  # for the others to end by themselves
_Value = TypeVar("_Value")


class TeammateError(UserError):
    """Another process of the run has failed; the message is its cause."""


class Team:
    """The processes of a run, which share a store; `place` is that of this process among them."""

    def __init__(self, place: Place, store: Store) -> None:
        self.place = place
        self.has_told = False
        self._store = store
        self._num_signs = 0

    # What to do ----------------------------------------------------------------------------------

    def tell(self, **message: Any) -> None:
        """In the first process: send the run to take part in, or `exit`, the code to exit with."""
        self.has_told = True
        self._store.set("told", json.dumps(message))

    def told(self) -> dict[str, Any]:
        """In another process: wait for the first process's message, and return it."""
        self._wait(["told"])
        message: dict[str, Any] = json.loads(self._store.get("told"))
        self._store.set(f"heard/{self.place.rank}", "1")
        return message

    def dismiss(self, code: int, error: str) -> None:
        """In the first process, if it runs nothing: make the others exit with the same code."""
        self.tell(exit=code, error=error)
        others = [f"heard/{rank}" for rank in range(1, self.place.world_size)]
        deadline = time.monotonic() + LEAVE_SECONDS
        with suppress(RuntimeError):
            while not self._store.check(others) and time.monotonic() < deadline:
                time.sleep(ASK_SECONDS)

    def meet_after_restart(self, device: str) -> None:
        """Create a new process group for the training after torchrun has restarted the processes.

        Otherwise, Lightning would start it, and torch 2.14 would find the addresses of the previous
        processes in the agent's store and try to reach them.
        """
        if num_restarts() and self.place.launcher == "torchrun":
            torch.distributed.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                store=PrefixStore("training", self._store),
                rank=self.place.rank,
                world_size=self.place.world_size,
            )

    # Agreement -----------------------------------------------------------------------------------

    def agreed(self, name: str, decide: Callable[[], _Value]) -> _Value:
        """Return the first process's value in all processes. JSON must be able to represent it."""
        if self.place.rank == 0:
            value = decide()
            self._store.set(f"agreed/{name}", json.dumps(value))
            return value
        self._wait([f"agreed/{name}"])
        found: _Value = json.loads(self._store.get(f"agreed/{name}"))
        return found

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in the first process, then once on every other node, then in the others."""
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
            raise TeammateError(
                "the first process of the run ended unexpectedly: type resume=<run folder> to continue"
            ) from error

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

    def give_sign(self) -> None:
        """In every process except the first: give a sign of life."""
        self._num_signs += 1
        self._store.set(f"sign/{self.place.rank}", str(self._num_signs))

    def signs(self) -> dict[int, str]:
        """In the first process: the last sign of life of each other one; empty if there is none."""
        keys = {rank: f"sign/{rank}" for rank in range(1, self.place.world_size)}
        return {
            rank: self._store.get(key).decode() if self._store.check([key]) else ""
            for rank, key in keys.items()
        }

    def require_all(self) -> None:
        """Raise an error if another process has ended early.

        Raises:
            TeammateError: the other process failed.
            LostProcessError: the other process was lost.
            Interrupted: the other process was told to stop.
        """
        how = self.ended()
        if how is not None and how["rank"] != self.place.rank:
            if "signal" in how:
                raise Interrupted(how["signal"])
            raise self.error(how)

    def error(self, how: dict[str, Any]) -> UserError:
        """The error to raise in this process because another one has ended."""
        kind = LostProcessError if how.get("is_lost") else TeammateError
        return kind(self.cause(how))

    def cause(self, how: dict[str, Any]) -> str:
        """One line that says why a process ended early."""
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
            f"({reason}): start all processes with one command, or type unset {' '.join(TORCHRUN)} if "
            "another program has set these"
        ) from error
    return Team(place, PrefixStore(f"glimpse/{num_restarts()}", store))


def interrupted_folder(place: Place) -> str | None:
    """The run folder of the processes before torchrun's restart; None if they had none."""
    if place.launcher != "torchrun":
        return None
    store = connected(place)._store
    assert isinstance(store, PrefixStore)
    for attempt in reversed(range(num_restarts())):
        before = PrefixStore(f"glimpse/{attempt}", store.underlying_store)
        if before.check(["told"]):
            folder = json.loads(before.get("told")).get("folder")
            return None if folder is None else str(folder)
    return None
