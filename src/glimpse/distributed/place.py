"""Which process of a run this is, from the variables of torchrun or of SLURM's srun.

The rest of the code, Lightning and torch read torchrun's variables. This file checks them, and
translates srun's into them. It imports nothing heavy.
"""

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from glimpse.errors import UserError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Variables that another program may leave behind, with their values for a single process.
ALONE = {
    "RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0, "NODE_RANK": 0, "WORLD_SIZE": 1,
    "LOCAL_WORLD_SIZE": 1, "SLURM_PROCID": 0, "SLURM_LOCALID": 0, "JSM_NAMESPACE_RANK": 0,
}  # fmt: skip
FIRST_PORT, NUM_PORTS = 15_000, 20_000  # for srun, chosen by job and step


@dataclass(frozen=True)
class Place:
    """The number of this process among all processes of a run, and among those on its node.

    `launcher` is the program that started the processes; empty if `python train.py` was typed.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    launcher: str = ""

    @property
    def node(self) -> int:
        """The number of this process's node."""
        return self.rank // self.local_world_size

    @property
    def num_nodes(self) -> int:
        """The number of nodes."""
        return self.world_size // self.local_world_size


def takes_one_device(trainer: Mapping[str, Any]) -> bool:
    """Whether a run that no launcher starts takes one device, however many the machine has.

    All of them would multiply the batch. A strategy, as in trainer=ddp, or a number asks for them.
    """
    return str(trainer["devices"]) == str(trainer["strategy"]) == "auto"


def num_devices(devices: int | str | Sequence[int]) -> int | None:
    """The number of devices that `trainer.devices` asks for; None: all of them."""
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if not isinstance(devices, int | str):
        return len(devices)
    return int(devices) if str(devices).isdigit() else None


def place_of(variables: MutableMapping[str, str]) -> Place:
    """The place that a launcher gave this process. srun's variables are translated into torchrun's.

    Raises:
        UserError: the variables contradict each other: another program has left them.
    """
    if all(variables.get(name) for name in TORCHRUN):
        return _checked(_whole_numbers(variables, TORCHRUN[:4]), "torchrun")
    # SLURM_NTASKS is set in a batch script too, of which there is a single process.
    tasks = variables.get("SLURM_STEP_NUM_TASKS") or "1"
    if "SLURM_PROCID" in variables and tasks != "1":
        return _of_srun(variables)
    stray = {
        name: variables[name]
        for name, alone in ALONE.items()
        if variables.get(name, str(alone)) != str(alone)
    }
    if stray:
        first, value = next(iter(stray.items()))
        raise UserError(
            f"{first}={value} is set, as in one of several processes, but not all of "
            f"{', '.join(TORCHRUN)}: another program left it; type unset {' '.join(stray)}, or start "
            "the processes with torchrun"
        )
    return Place()


def num_restarts() -> int:
    """How often torchrun has restarted the processes (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _of_srun(variables: MutableMapping[str, str]) -> Place:
    nodes = variables.get("SLURM_STEP_NUM_NODES") or variables.get("SLURM_NNODES") or "1"
    names = ("SLURM_PROCID", "SLURM_LOCALID")
    rank, local_rank, world_size, num_nodes, job, step = _whole_numbers(
        {
            **variables, "SLURM_NNODES": nodes,
            "SLURM_STEP_ID": variables.get("SLURM_STEP_ID") or "0",
        },
        (*names, "SLURM_STEP_NUM_TASKS", "SLURM_NNODES", "SLURM_JOB_ID", "SLURM_STEP_ID"),
    )  # fmt: skip
    place = _checked((rank, world_size, local_rank, world_size // max(num_nodes, 1)), "srun")
    hosts = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_NODELIST") or "127.0.0.1"
    variables.setdefault("MASTER_ADDR", first_host(hosts) if num_nodes > 1 else "127.0.0.1")
    variables.setdefault("MASTER_PORT", str(FIRST_PORT + (job + 97 * step) % NUM_PORTS))
    variables.update(variables_of(place))
    return place


def variables_of(place: Place) -> dict[str, str]:
    """torchrun's variables for a place, without the address of the first process."""
    return {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world_size),
        "GROUP_RANK": str(place.node),
    }


def first_host(hosts: str) -> str:
    """The first of SLURM's list of hosts, such as `gpu[03-05,9],big1` or `rack[0-1]node[0-3]`."""
    first = re.match(r"([^,\[]|\[[^\]]*\])*", hosts.strip())
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0] if first else hosts)


def _whole_numbers(variables: Mapping[str, str], names: tuple[str, ...]) -> tuple[int, ...]:
    for name in names:
        if not variables.get(name, "").isdecimal():
            raise UserError(
                f"{name}={variables.get(name, '')}: expected a whole number; type unset {name}, or "
                "start the processes with torchrun or srun"
            )
    return tuple(int(variables[name]) for name in names)


def _checked(numbers: tuple[int, ...], launcher: str) -> Place:
    rank, world_size, local_rank, local_world_size = numbers
    place = Place(rank, world_size, local_rank, local_world_size, launcher)
    if not (0 <= place.rank < place.world_size and place.local_rank < place.local_world_size):
        raise UserError(
            f"RANK={place.rank} of WORLD_SIZE={place.world_size} and LOCAL_RANK={place.local_rank} of "
            f"LOCAL_WORLD_SIZE={place.local_world_size} contradict each other: another program left "
            f"them; type unset {' '.join(TORCHRUN)}"
        )
    if place.node * place.local_world_size + place.local_rank != place.rank or (
        place.world_size % place.local_world_size
    ):
        raise UserError(
            f"process {place.rank} is number {place.local_rank} on its node: expected as many processes "
            "on every node, numbered node by node; for srun, type --ntasks-per-node=<number> "
            "--distribution=block"
        )
    return place


def require_launched_processes(trainer: Mapping[str, Any], place: Place) -> None:
    """Require `trainer.devices` and `trainer.num_nodes` to match what the launcher started.

    Raises:
        UserError: they differ. The message says what to type.
    """
    devices, nodes = trainer["devices"], trainer["num_nodes"]
    if not place.launcher:
        if nodes not in ("auto", 1):
            raise UserError(
                f"trainer.num_nodes={nodes}: python train.py starts processes on this machine only; "
                f"type torchrun --nnodes={nodes} --nproc-per-node=<devices of a node> train.py … on "
                "every node, or srun"
            )
        return
    started = place.local_world_size
    if num_devices(devices) not in (None, started):
        raise UserError(
            f"trainer.devices={devices}, but {place.launcher} started {started} processes on each node: "
            f"type trainer.devices={started}"
        )
    if nodes not in ("auto", place.num_nodes):
        raise UserError(
            f"trainer.num_nodes={nodes}, but the number of nodes on which {place.launcher} started processes is "
            f"{place.num_nodes}: type trainer.num_nodes={place.num_nodes}"
        )
