"""Which process this is, from a launcher's variables; what another program left is refused."""

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator

from conftest import composed
from glimpse.config.combinations import require_one_batch_size
from glimpse.distributed.place import Place, first_host, place_of, require_launched_processes
from glimpse.errors import UserError
from glimpse.sweeps.resources import num_processes_of
from glimpse.trainer import num_processes

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip
SRUN = {
    "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "812345", "SLURM_NODELIST": "gpu[03-04]", "SLURM_NTASKS_PER_NODE": "2",
}  # fmt: skip


def test_a_batch_script_without_srun_is_one_process() -> None:
    """SLURM tells it how many tasks its job has; srun would start them."""
    assert place_of({"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}) == Place()


def test_one_process_alone() -> None:
    assert place_of({"RANK": "0", "WORLD_SIZE": "1", "SLURM_PROCID": "0"}) == Place()


def test_torchrun_and_srun_give_the_same_place() -> None:
    by_torchrun, by_srun = place_of(dict(TORCHRUN)), place_of(dict(SRUN))
    assert (by_torchrun.node, by_torchrun.num_nodes) == (by_srun.node, by_srun.num_nodes) == (1, 2)
    variables = dict(SRUN)
    place_of(variables)
    assert {name: variables[name] for name in TORCHRUN if "MASTER" not in name} == {
        name: value for name, value in TORCHRUN.items() if "MASTER" not in name
    }
    assert variables["MASTER_ADDR"] == "gpu03"
    assert place_of(variables).rank == 3  # a process that it starts reads them again


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu[03-05,9],big1", "gpu03"),
        ("a,b", "a"),
        ("n7", "n7"),
        ("x[2,4]-ib", "x2-ib"),
        ("rack[0-1]node[0-3],big[1-2]", "rack0node0"),
    ],
)
def test_first_host(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LOCAL_RANK": "1"}, "unset LOCAL_RANK"),
        ({"RANK": "1"}, "unset RANK"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "unset RANK WORLD_SIZE"),
        ({"NODE_RANK": "1", "MASTER_ADDR": "a"}, "unset NODE_RANK"),
        ({"SLURM_PROCID": "2"}, "unset SLURM_PROCID"),
        ({"JSM_NAMESPACE_RANK": "1"}, "unset JSM_NAMESPACE_RANK"),
        (TORCHRUN | {"RANK": "x"}, "expected a whole number"),
        (TORCHRUN | {"RANK": "4"}, "contradict"),
        (TORCHRUN | {"RANK": "2"}, "numbered node by node"),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "5"}, "as many processes on every node"),
        (SRUN | {"SLURM_JOB_ID": ""}, "SLURM_JOB_ID"),
    ],
)
def test_variables_that_another_program_left(variables: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        place_of(dict(variables))


@pytest.mark.parametrize(
    ("devices", "nodes", "message"),
    [
        ("auto", "auto", None),
        (2, 2, None),
        ([4, 5], "auto", None),
        ("0,1", "auto", None),
        (4, "auto", "type trainer.devices=2"),
        ([0], "auto", "type trainer.devices=2"),
        (2, 3, "type trainer.num_nodes=2"),
    ],
)
def test_the_trainer_has_the_processes_of_the_launcher(
    devices: object, nodes: object, message: str | None
) -> None:
    trainer, place = {"devices": devices, "num_nodes": nodes}, place_of(dict(TORCHRUN))
    if message is None:
        require_launched_processes(trainer, place)
        return
    with pytest.raises(UserError, match=message):
        require_launched_processes(trainer, place)


def test_several_nodes_need_a_launcher() -> None:
    with pytest.raises(UserError, match="type torchrun --nnodes=2"):
        require_launched_processes({"devices": 1, "num_nodes": 2}, Place())


def test_one_of_the_two_batch_sizes() -> None:
    config, _ = composed("data.global_batch_size=64")
    require_one_batch_size(config, ["data.global_batch_size=64"])
    with pytest.raises(UserError, match="type only one of them"):
        require_one_batch_size(config, ["data.batch_size=32", "data.global_batch_size=64"])


def test_a_run_takes_all_devices_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", staticmethod(lambda: 8))
    for words, expected in {
        (): 1,
        ("trainer=ddp",): 8,
        ("trainer.strategy=ddp",): 8,
        ("trainer.devices=-1",): 8,
    }.items():
        config, _ = composed(*words)
        assert num_processes(config) == num_processes_of(config, 8) == expected


@pytest.mark.parametrize(
    ("devices", "expected"), [("'0,3'", 2), ("[0,3]", 2), ("'2'", 2), ("auto", 8)]
)
def test_the_devices_of_a_job_are_counted(devices: str, expected: int) -> None:
    config, _ = composed("trainer.strategy=ddp", f"trainer.devices={devices}")
    assert num_processes_of(config, 8) == expected
