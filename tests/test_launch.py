"""The command itself, in processes of its own: exit codes, one-line errors, sweeps, resume."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import REPOSITORY, TRAIN, Train, slow
from glimpse.assembly import build_metrics
from glimpse.config.flags import require_their_use, split_arguments, with_default_flags
from glimpse.errors import UserError
from glimpse.launch import help_unchecked
from glimpse.runs.trained import TrainedRun
from preloaded import Preloaded

SMALL = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=64", "data.num_val=32", "trainer=cpu",
    "trainer.max_epochs=2",
)  # fmt: skip


def test_a_help_that_is_no_text_is_not_checked_while_hydra_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Python 3.14 does, which refuses Hydra's help for --shell-completion."""

    def check(_parser: argparse.ArgumentParser, _action: argparse.Action) -> None:
        raise ValueError("badly formed help string")

    monkeypatch.setattr(argparse.ArgumentParser, "_check_help", check, raising=False)
    with help_unchecked():
        parser: Any = argparse.ArgumentParser()
        parser._check_help(parser.add_argument("--one"))
    with pytest.raises(ValueError, match="badly formed"):
        parser._check_help(None)


TEMPLATE = str(REPOSITORY / "src" / "glimpse" / "template" / "train.py")


@pytest.mark.parametrize(
    "command", [[TRAIN], [TEMPLATE], ["-m", "glimpse", "train"], ["-m", "glimpse", "report"]]
)
def test_ctrl_c_while_libraries_are_imported_prints_nothing(
    tmp_path: Path, command: list[str]
) -> None:
    for library in ("hydra", "omegaconf", "typer"):
        (tmp_path / f"{library}.py").write_text("raise KeyboardInterrupt")
    ended = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def fresh(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python train.py <arguments>` in a new process, in which importing torch is fatal."""
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')")
    return subprocess.run(
        [sys.executable, TRAIN, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_environment_that_is_not_active_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-S", TRAIN]  # without installed packages
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "source .venv/bin/activate" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def errors(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in result.stderr.splitlines() if line.startswith("error:")]


def test_the_default_command_learns_the_digits(tmp_path: Path) -> None:
    """In a process that nothing prepared."""
    result = subprocess.run([sys.executable, TRAIN], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    [summary] = (tmp_path / "outputs").glob("digits-convnet_small/*/summary.json")
    found = json.loads(summary.read_text())
    # 0.969 to 0.989 by seed, processor and number of threads; one of the 360 test images is 0.003.
    assert found["metrics"]["test/acc"] >= 0.96
    folder = summary.parent.relative_to(tmp_path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\w+", folder.name)
    assert str(folder) in result.stdout
    assert "tensorboard --logdir outputs" in result.stdout
    assert "majority class: 0.10" in result.stdout
    assert result.stderr == ""
    assert len(re.findall(r"^epoch \d+/10  train loss", result.stdout, re.M)) == 10
    assert "\r" not in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("optimizer", "task"), [("LBFGS", "check=true"), ("RMSprop", "task=lr_find")]
)
def test_an_optimizer_s_file_may_name_its_class_alone(
    train: Train, tmp_path: Path, optimizer: str, task: str
) -> None:
    file = tmp_path / "conf" / "optimizer" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"_target_: torch.optim.{optimizer}")
    result = train("--config-dir", "conf", *SMALL, "optimizer=mine", "model=linear", task)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=convnet"], "did you mean model?"),
        (["model=convent"], "did you mean convnet?"),
        (["model.widhts=[3]", "model=mlp"], "did you mean model.widths?"),
        slow(["callbacks=[early_stoping]"], "did you mean early_stopping?"),
        (["data.batch_size=0"], "expected at least 1"),
        (["-m", "model=linear,mlp", "optimizer.lrr=1"], "did you mean optimizer.lr?"),
        slow(["seed=1,2"], "type -m to sweep"),
        slow(["data.lr=["], "for text, type"),
        (["hydra.searchpath=[file:///a"], "hydra.searchpath=[file:///a: a bracket is not closed"),
        (["resume=nowhere"], "there is no such folder"),
        slow(
            ["augment=null"],
            "augment=null: there is no such augmentation (did you mean none?); choose from alternating_flip",
        ),
        slow(["resume=."], "not a run folder"),
        slow(["resume="], "expected a run folder"),
        slow(["hydra/sweeper=search"], "type -m too"),
        slow(["-m", "hydra/sweeper=serach"], "there is no such sweeper (did you mean search?)"),
    ],
)
def test_configuration_errors_are_one_line_before_torch_is_imported(
    tmp_path: Path, arguments: Sequence[str], message: str
) -> None:
    result = fresh(tmp_path, *arguments)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert not list(tmp_path.glob("outputs/*/*"))


@pytest.mark.parametrize("flag", ["--help", "--cfg=job"])
def test_flags_answer_before_torch_is_imported(tmp_path: Path, flag: str) -> None:
    result = fresh(tmp_path, *flag.split("="))
    assert result.returncode == 0
    assert "convnet" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        slow(["data=mnist", "data.url=file:///nowhere/at/all"], "no such file"),
        slow(["data.classes=[0,eleven]"], "no class eleven"),
        (["model=convnet_template"], "22×22 or larger"),
    ],
)
def test_errors_of_a_run_are_one_line(
    train: Train, tmp_path: Path, arguments: Sequence[str], message: str
) -> None:
    result = train(*arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    [summary] = tmp_path.glob("outputs/*/*/summary.json")
    assert json.loads(summary.read_text())["status"] == "failed"


def test_a_traceback_for_those_who_ask(train: Train, tmp_path: Path) -> None:
    result = train("data.batch_size=0", HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.slow
def test_sweep_has_one_folder_and_goes_on_after_a_failure(train: Train, tmp_path: Path) -> None:
    result = train("-m", "model=linear,convnet_template,mlp", *SMALL, "name=trial")
    assert result.returncode == 1
    folder = tmp_path / "outputs" / "sweeps" / "trial"
    jobs = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/summary.json")}
    models = ("linear", "convnet_template", "mlp")
    assert set(jobs) == {f"model-{model}" for model in models}
    for name, summary in jobs.items():
        assert summary["status"] == ("failed" if "template" in name else "finished")
    assert "job 2 of 3 failed (model=convnet_template): " in result.stderr
    assert errors(result)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), slow(signal.SIGTERM, 143), slow(signal.SIGHUP, 129)]
)
def test_a_stopped_run_can_be_resumed(
    preloaded: Preloaded, train: Train, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = preloaded.start(tmp_path, TRAIN, *SMALL, "trainer.max_epochs=100000")
    deadline = time.monotonic() + 120
    while "epoch 3/" not in (printed := preloaded.printed(process)[0]):
        assert time.monotonic() < deadline, printed
        time.sleep(0.1)
    os.kill(process, number)
    os.kill(process, number)  # a second one changes nothing
    stopped = preloaded.wait(process)
    assert stopped.returncode == code
    [folder] = tmp_path.glob("outputs/*/*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert "python train.py resume=" in stopped.stdout + stopped.stderr
    recorded = (folder / ".hydra" / "overrides.yaml").read_text()
    epochs = summary["epochs"] + 2
    result = train(f"resume={folder}", f"trainer.max_epochs={epochs}")
    assert result.returncode == 0, result.stderr
    resumed = json.loads((folder / "summary.json").read_text())
    assert (resumed["status"], resumed["epochs"]) == ("finished", epochs)
    assert (folder / ".hydra" / "overrides.yaml").read_text() == recorded
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, epochs + 1))


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked from a server there")
def test_a_sweep_that_is_stopped_while_its_workers_import_ends_quietly(tmp_path: Path) -> None:
    """Ctrl-C also reaches the process that imports torch for the workers."""
    begun = tmp_path / "begun"
    (tmp_path / "torch.py").write_text(
        f"import os, pathlib, time; begun = pathlib.Path({str(begun)!r}); begun.touch()\n"
        "while begun.exists(): time.sleep(0.05)\n"
        "os._exit(0)"
    )
    process = subprocess.Popen(
        [sys.executable, TRAIN, "-m", "model=linear,mlp", *SMALL],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a group of its own, as in a shell
    )
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    code = process.wait(timeout=60)
    begun.unlink()
    printed, _ = process.communicate(timeout=60)
    assert code == 130
    assert "to continue, type: python train.py -m" in printed
    assert "Traceback" not in printed


@pytest.mark.slow
def test_ddp_on_two_processes_scores_every_image_once(train: Train, tmp_path: Path) -> None:
    """Also by the metrics, and by a loss whose mean depends on which images share a batch."""
    options = ("data.num_train=65", "data.num_val=33", "model=linear", "data.batch_size=16")
    names = ("f1", "auroc", "average_precision", "balanced_accuracy", "calibration", "kappa", "mcc")
    weights = [1.0, 5, 0.2, 3, 1, 1, 2, 1, 1, 4]
    more = (
        f"metrics=[{','.join(names)}]", "monitor=val/f1", "data.sampling=sqrt",
        f"loss.class_weights=[{','.join(map(str, weights))}]", "logger=[tensorboard,csv]",
    )  # fmt: skip
    result = train(*SMALL, *options, *more, "trainer=ddp_cpu", "trainer.max_epochs=1")
    assert result.returncode == 0, result.stderr
    [summary] = tmp_path.glob("outputs/*/*/summary.json")
    metrics = json.loads(summary.read_text())["metrics"]
    for name, count in (("val/acc", 33), ("test/acc", 33), ("train/acc", 65)):
        right = metrics[name] * count
        assert right == pytest.approx(round(right), abs=1e-4), name
    trained = TrainedRun(summary.parent)
    scoring = build_metrics(trained.config, trained.spec)
    assert scoring is not None
    for split in ("val", "test"):
        found = trained.predict(split)
        for name, value in scoring.of(found.logits, found.labels).items():
            assert metrics[f"{split}/{name}"] == pytest.approx(value, abs=1e-6), (split, name)
        loss = torch.nn.functional.cross_entropy(
            torch.from_numpy(found.logits), torch.from_numpy(found.labels), torch.tensor(weights)
        )
        assert metrics[f"{split}/loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.slow
def test_flags_may_stand_anywhere(train: Train, tmp_path: Path) -> None:
    arguments = ("output_dir=x", "-m", "model=linear,mlp", "name=two", *SMALL, "logger=none")
    result = train(*arguments)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "x" / "sweeps" / "two").glob("*/summary.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "flags", "overrides"),
    [
        (["seed=1", "-m"], ["-m"], ["seed=1"]),
        (["seed=1", "--cfg", "job", "model=mlp"], ["--cfg", "job"], ["seed=1", "model=mlp"]),
        (["seed=1", "--config-dir", "a=b", "x=1"], ["--config-dir", "a=b"], ["seed=1", "x=1"]),
        (["--info", "seed=1"], ["--info", "all"], ["seed=1"]),
        (["x=1", "--info", "plugins"], ["--info", "plugins"], ["x=1"]),
        (["--cfg=job", "~callbacks.pictures"], ["--cfg=job"], ["~callbacks.pictures"]),
        (["data=mnist", "--hydra-help"], ["--hydra-help"], []),
    ],
)
def test_flags_are_told_from_overrides(
    arguments: list[str], flags: list[str], overrides: list[str]
) -> None:
    assert split_arguments(arguments) == (flags, overrides)


def test_a_flag_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(UserError, match=r"--model: there is no such flag.*: type model=mlp"):
        split_arguments(["--model", "mlp"])
    with pytest.raises(UserError, match=r"--batch-size: .*: type data.batch_size=8"):
        split_arguments(["--batch-size=8"])
    with pytest.raises(UserError, match=r'data=image_folder "data.root=My Photos"$'):
        split_arguments(["--data", "My Photos"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--cfg", "--cfg: expected one of job, hydra, all: type --cfg job"),
        ("--cfg jobb", "--cfg jobb: expected one of job, hydra, all"),
        ("--config-dir", "--config-dir: expected a value after it, found nothing"),
        ("-m seed=1,2 --cfg job", "--cfg prints one configuration: remove -m"),
        ("--run -m", "--run runs once: remove -m"),
        ("--resolve", "--resolve needs --cfg: type --cfg job --resolve"),
        ("-sc", "-sc: expected a shell: type -sc install=bash"),
        ("-e 3", "-e: there is no such flag: type python train.py --help for the flags and keys"),
        ("-- model=linear", "--: there is no such flag: leave it out"),
        ("--ckpt x", "type resume=<run folder>, or model.weights=<file>"),
        ("--config-path conf", "type --config-dir conf to add yours"),
        ("-cn -m", "-cn: expected a value after it, found -m"),
    ],
)
def test_a_flag_that_lacks_something_is_one_line(typed: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        split_arguments(typed.split())


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("name=foo", "name=foo is not used without -m"),
        ("hydra.sweep.dir=x", "hydra.sweep.dir=x is not used without -m"),
        ("-m hydra.run.dir=x", "hydra.run.dir=x is not used in a sweep"),
        ("-m name=foo hydra.sweep.dir=x", ""),
    ],
)
def test_a_folder_that_is_not_used_is_reported(
    typed: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    require_their_use(*split_arguments(typed.split()))
    assert capsys.readouterr().err.strip() == message


def test_a_setting_of_sweeps_needs_a_sweep() -> None:
    with pytest.raises(UserError, match="is a setting of sweeps: type -m too"):
        require_their_use(*split_arguments(["sweep.fail_fast=true"]))
    require_their_use(*split_arguments(["--cfg", "hydra", "hydra/launcher=submitit_slurm"]))


def test_another_folder_does_not_replace_that_of_a_project(tmp_path: Path) -> None:
    project, extra = tmp_path / "conf", tmp_path / "my extra"
    for folder in (project, extra):
        folder.mkdir()
    with pytest.raises(
        UserError, match=r"replace .* own folder, .*conf: type .hydra.searchpath=\[file:"
    ):
        with_default_flags(["--config-dir", str(extra)], project, "project")
    (extra / "project.yaml").write_text("")
    flags = with_default_flags(["--config-dir", str(extra)], project, "project")
    assert flags == ["--config-name", "project", "--config-dir", str(extra)]


def test_a_checkpoint_means_its_run(train: Train, tmp_path: Path) -> None:
    assert train(*SMALL, "model=linear").returncode == 0
    [folder] = tmp_path.glob("outputs/*/*")
    last = folder / "checkpoints" / "last.ckpt"
    result = train("trainer.max_epochs=3", f"resume={last}")
    assert result.returncode == 0, result.stderr
    assert json.loads((folder / "summary.json").read_text())["epochs"] == 3
    (tmp_path / "alone.ckpt").write_bytes(last.read_bytes())
    result = train("resume=alone.ckpt")
    assert result.stderr == (
        "error: resume=alone.ckpt: expected a run folder, or a checkpoint inside one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["callbacks=[progressive_sizes]", "data.shape=[1,16,16]", "trainer.max_epochs=1"],
            "small images",
        ),
        (["model=convnet_template"], "22×22"),
        (["trainer.num_nodes=2"], "type torchrun --nnodes=2"),
    ],
)
def test_check_refuses_what_the_run_would(
    train: Train, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = train(*SMALL, "check=true", *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert not list(tmp_path.glob("outputs/*"))
