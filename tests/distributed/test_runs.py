"""A run in several processes: the same as in one, whoever starts them; and no process is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import train, wait_for
from conftest import TRAIN, Execute, processes_of
from glimpse.distributed.processes import Silence, _is_of_connection
from glimpse.errors import Interrupted, UserError
from preloaded import environment
from test_resume import assert_same, stop_at
from test_run import read_rows, read_summary

TINY = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=67", "data.num_val=33",
    "data.batch_size=16", "model=mlp", "model.widths=[12]", "trainer.max_epochs=2", "logger=none",
)  # fmt: skip
ENDLESS = (
    *TINY[:4], "data.num_train=20000", "data.batch_size=16", "model=linear", "logger=none",
    "trainer.max_epochs=1000", "callbacks.pictures=null", "test=false",
)  # fmt: skip


def torchrun(*arguments: str, nproc: int = 2) -> list[str]:
    options = [
        f"--nproc-per-node={nproc}",
        *([] if "--nnodes=2" in arguments else ["--standalone"]),
    ]
    return [sys.executable, "-m", "torch.distributed.run", *options, *arguments]


def start(tmp_path: Path, command: list[str], log: str = "log", **variables: str) -> Any:
    with (tmp_path / log).open("w") as file:
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment(**variables), stdout=file, stderr=file
        )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_summary(folder)["metrics"]
    return found


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process with the batches that two would share."""
    folder = tmp_path_factory.mktemp("one")
    result = train(folder, *TINY, "data.batch_size=32", "trainer=cpu", "callbacks.pictures=null")
    assert result.returncode == 0, result.stderr
    [run] = folder.glob("outputs/*/*")
    return run


def assert_as_one(run: Path, one: Path) -> None:
    assert metrics(run) == pytest.approx(metrics(one), abs=1e-5)
    names = ("epoch", "step", "train/loss", "train/acc", "val/loss", "val/acc", "lr")
    for row, other in zip(read_rows(run), read_rows(one), strict=True):
        assert [float(row[n]) for n in names] == pytest.approx(
            [float(other[n]) for n in names], abs=1e-5
        )


@pytest.mark.slow
def test_processes_of_torchrun_make_one_run(tmp_path: Path, one_process: Path) -> None:
    options = ("data.global_batch_size=32", "callbacks.pictures=null", "trainer.accelerator=cpu")
    arguments = [a for a in TINY if "batch_size" not in a]
    process = start(tmp_path, torchrun(TRAIN, *arguments, *options))
    assert process.wait(120) == 0, (tmp_path / "log").read_text()
    [run] = tmp_path.glob("outputs/*/*")
    printed = (tmp_path / "log").read_text()
    assert "2 processes × 16 images = 32 in a batch" in printed
    assert printed.count("epoch 2/2") == 1
    assert_as_one(run, one_process)


def test_the_processes_that_a_run_starts(
    execute: Execute, tmp_path: Path, one_process: Path
) -> None:
    before = dict(os.environ)
    run = execute(*TINY, "trainer=ddp_cpu")
    assert_as_one(run, one_process)
    assert dict(os.environ) == before
    assert {p.name for p in run.iterdir()} == {
        "checkpoints", "environment.json", "metrics.csv", "summary.json"
    }  # fmt: skip


@pytest.mark.slow
def test_class_weights_are_those_of_the_whole_batch(execute: Execute) -> None:
    """The gradient is divided by the sum of the weights in all processes, not in each."""
    weighted = (*TINY, "data.num_classes=3", "loss.class_weights=[1,4,30]")
    several = execute(*weighted, "trainer=ddp_cpu")
    one = execute(*weighted, "data.batch_size=32", "trainer=cpu")
    assert_as_one(several, one)
    weights = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (several, one)
    ]
    for name, value in weights[0]["state_dict"].items():
        torch.testing.assert_close(value, weights[1]["state_dict"][name], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_processes_of_srun_make_one_run(tmp_path: Path, one_process: Path) -> None:
    port = str(free_port())
    running = []
    for rank in "01":
        variables = {
            "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "1",
            "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "MASTER_PORT": port,
        }  # fmt: skip
        command = [sys.executable, TRAIN, *TINY, "trainer=ddp_cpu", "callbacks.pictures=null"]
        running.append(start(tmp_path, command, f"log{rank}", **variables))
    assert [p.wait(120) for p in running] == [0, 0], (tmp_path / "log0").read_text()
    assert (tmp_path / "log1").read_text() == ""
    [run] = tmp_path.glob("outputs/*/*")
    assert_as_one(run, one_process)


@pytest.mark.slow
def test_two_nodes_make_one_run(tmp_path: Path, one_process: Path) -> None:
    """Imitated by two groups of torchrun on this machine."""
    port = free_port()
    groups = [
        start(
            tmp_path,
            torchrun(
                "--nnodes=2", f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}",
                TRAIN, *TINY[:4], "data.batch_size=32", *TINY[5:], "trainer.num_nodes=2",
                "trainer.accelerator=cpu", "callbacks.pictures=null", nproc=1,
            ),
            f"log{node}",
        )
        for node in range(2)
    ]  # fmt: skip
    assert [group.wait(120) for group in groups] == [0, 0], (tmp_path / "log0").read_text()
    [run] = tmp_path.glob("outputs/*/*")
    assert "2 processes on 2 nodes × 32 images" in (tmp_path / "log0").read_text()
    assert "epoch" not in (tmp_path / "log1").read_text()
    assert read_summary(run)["status"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=mlp"], "did you mean model?"),
        (["-m", "seed=1,2"], "a sweep starts the processes"),
        (["trainer=cpu", *TINY], "type trainer.devices=2"),
    ],
)
@pytest.mark.slow
def test_all_processes_end_where_the_first_composes_nothing(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    process = start(tmp_path, torchrun(TRAIN, *arguments))
    assert process.wait(60) == 1
    printed = (tmp_path / "log").read_text()
    assert printed.count("error: ") == 1
    assert message in printed
    assert not list(tmp_path.glob("outputs/*/*"))


@pytest.mark.slow
@pytest.mark.parametrize("started_by", ["run", "torchrun"])
def test_a_killed_process_ends_the_run(tmp_path: Path, started_by: str) -> None:
    if started_by == "run":
        process = start(tmp_path, [sys.executable, TRAIN, *ENDLESS, "trainer=ddp_cpu"])
    else:
        process = start(tmp_path, torchrun(TRAIN, *ENDLESS, "trainer=ddp_cpu"))
    log = tmp_path / "log"
    assert ended_without_rank_1(process, tmp_path, "epoch 1/", 60) == 1, log.read_text()
    [run] = tmp_path.glob("outputs/*/*")
    summary = read_summary(run)
    assert summary["status"] == "interrupted"
    assert "killed" in summary["error"].lower()
    assert sum(line.startswith("error: ") for line in log.read_text().splitlines()) == 1
    assert summary["error"] in log.read_text()
    time.sleep(1)
    assert processes_of(tmp_path) == []


@pytest.mark.slow
def test_a_process_that_is_stopped_for_long_ends_the_run(tmp_path: Path) -> None:
    process = start(tmp_path, [sys.executable, TRAIN, *ENDLESS, "trainer=ddp_cpu"])
    log = tmp_path / "log"
    stop = signal.SIGSTOP
    assert ended_without_rank_1(process, tmp_path, "epoch 1/", 120, stop) == 1, log.read_text()
    [run] = tmp_path.glob("outputs/*/*")
    summary = read_summary(run)
    assert summary["status"] == "interrupted"
    assert "process 1 of 2: it has given no sign of life for 40 s" in summary["error"]
    assert log.read_text().count("error: ") == 1
    assert processes_of(tmp_path) == []


def test_silence_counts_from_the_last_sign() -> None:
    silence = Silence()
    assert silence.of({1: "", 2: ""}, 100) == []  # they have not begun
    assert silence.of({1: "1", 2: ""}, 100) == []
    assert silence.of({1: "1", 2: "1"}, 39) == []
    assert silence.of({1: "2", 2: "1"}, 39) == []
    assert silence.of({1: "2", 2: "1"}, 1) == [2]


def test_a_process_that_never_begins_is_missed() -> None:
    silence = Silence()
    assert silence.of({1: ""}, 5) == []
    assert silence.of({1: ""}, 175) == []
    assert silence.of({1: ""}, 5) == [1]


def ended_without_rank_1(
    process: Any,
    folder: Path,
    text: str,
    seconds: float,
    number: signal.Signals = signal.SIGKILL,
) -> int:
    """Send a signal to the process of rank 1 when the log contains a text; return how the command ends."""
    try:
        wait_for(folder / "log", text)
        [rank_1] = [
            found
            for found in processes_of(folder)
            if b"RANK=1" in Path(f"/proc/{found}/environ").read_bytes().split(b"\0")
        ]
        os.kill(rank_1, number)
        return int(process.wait(seconds))
    finally:
        process.kill()


@pytest.mark.slow
def test_torchrun_is_stopped_and_resumed(tmp_path: Path) -> None:
    process = start(tmp_path, torchrun(TRAIN, *ENDLESS, "trainer=ddp_cpu"))
    log = tmp_path / "log"
    wait_for(log, "epoch 1/")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    [run] = tmp_path.glob("outputs/*/*")
    assert read_summary(run)["status"] == "interrupted"
    epochs = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    again = torchrun(TRAIN, f"resume={run}", f"trainer.max_epochs={epochs}")
    process = start(tmp_path, again, "log2")
    assert process.wait(120) == 0, (tmp_path / "log2").read_text()
    assert read_summary(run)["status"] == "finished"
    assert len(list(tmp_path.glob("outputs/*/*"))) == 1


@pytest.mark.slow
def test_a_restart_by_torchrun_resumes_the_run(tmp_path: Path) -> None:
    arguments = ("--max-restarts=1", TRAIN, *ENDLESS, "trainer=ddp_cpu", "trainer.max_epochs=8")
    process = start(tmp_path, torchrun(*arguments))
    log = tmp_path / "log"
    assert ended_without_rank_1(process, tmp_path, "epoch 2/", 200) == 0, log.read_text()
    [run] = tmp_path.glob("outputs/*/*")
    assert "torchrun has restarted the processes: resuming" in log.read_text()
    assert read_summary(run)["status"] == "finished"
    assert [int(row["epoch"]) for row in read_rows(run)] == list(range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("ddp_cpu", "cpu"), ("cpu", "ddp_cpu")])
def test_resumed_on_another_number_of_processes(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, then: str
) -> None:
    """The same but for rounding, if the global batch stays the same."""
    options = (
        *(a for a in TINY if "batch_size" not in a),
        "data.global_batch_size=8",
        "test=false",
    )
    unbroken = execute(*options, "trainer=cpu", "trainer.max_epochs=2", folder=tmp_path / "one")
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, "on_train_batch_end", 0, 1)
        with pytest.raises(Interrupted):
            execute(*options, f"trainer={first}", "trainer.max_epochs=2", folder=folder)
    execute(*options, f"trainer={then}", "trainer.max_epochs=2", f"resume={folder}", folder=folder)
    assert_as_one(folder, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("callbacks", ["", "hard_examples"])
def test_stopped_in_an_epoch_and_resumed_equals_unbroken(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callbacks: str
) -> None:
    """Also the masks of dropout in the second process, the sums of both, and their proxies."""
    options = (
        "data=synthetic", "data.shape=[1,8,8]", "data.num_train=200", "data.num_val=33",
        "data.batch_size=4", "model=convnet", "model.widths=[4]", "model.hidden=8",
        "model.dropout=0.5", "trainer.max_epochs=2", "logger=none", "trainer=ddp_cpu", "test=false",
        f"callbacks=[{callbacks}]",
    )  # fmt: skip
    unbroken = execute(*options, folder=tmp_path / "unbroken")
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, "on_train_batch_end", 1, 1)
        with pytest.raises(Interrupted):
            execute(*options, folder=stopped)
    saved = torch.load(stopped / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["glimpse"]["next_batch"]["next_batch"]
    execute(*options, f"resume={stopped}", folder=stopped)
    assert_same(unbroken, stopped)
    names = ("train/loss", "train/acc", "val/loss", "val/acc")
    for row, other in zip(read_rows(unbroken), read_rows(stopped), strict=True):
        assert [row[name] for name in names] == [other[name] for name in names]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_processes_in_the_epoch(execute: Execute) -> None:
    options = (
        *ENDLESS[:-3], "trainer.max_epochs=1", "test=false", "model=mlp", "optimizer=sgd",
        "optimizer.lr=1e36", "scheduler=constant", "trainer=ddp_cpu",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"train/loss at epoch 1, batch \d+ is (nan|inf)"):
        execute(*options)


def test_only_a_lost_connection_is_taken_for_one() -> None:
    lost = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"
    assert _is_of_connection(RuntimeError(lost))
    assert not _is_of_connection(RuntimeError("the skip connection has 3 channels, expected 4"))


def test_a_batch_that_cannot_be_divided(execute: Execute) -> None:
    with pytest.raises(UserError, match=r"type data\.global_batch_size=64"):
        execute(*TINY, "trainer=ddp_cpu", "data.global_batch_size=65")


def test_a_stray_variable_is_an_error(tmp_path: Path) -> None:
    result = train(tmp_path, *TINY, LOCAL_RANK="1")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "unset LOCAL_RANK" in result.stderr


def test_a_process_without_validation_images_takes_part_in_the_metrics(tmp_path: Path) -> None:
    few = ("data.num_val=1", "test=false", "callbacks.pictures=null", "trainer.max_epochs=1")
    added = "metrics=[f1,mcc,auroc,average_precision]"
    result = train(tmp_path, *TINY, *few, "trainer=cpu", "trainer.devices=2", added)
    assert result.returncode == 0, result.stderr
    [run] = tmp_path.glob("outputs/*/*")
    found = metrics(run)
    assert found["val/f1"] == found["val/acc"]  # of a single image
    assert found["val/average_precision"] == 1.0
