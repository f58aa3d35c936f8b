"""Every logger with its real package, offline and without an account: content, place and resume."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger
from lightning_utilities.core.imports import RequirementCache

from conftest import Execute, Train, composed
from folders import rows_of
from glimpse.errors import UserError
from glimpse.files import require_no_links_out
from glimpse.loggers.building import build_loggers

TINY = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=60", "data.num_val=30",
    "data.num_classes=6", "data.batch_size=16", "model=linear", "trainer=cpu",
    "trainer.max_epochs=2", "metrics=[f1]",
)  # fmt: skip
PICTURES = "callbacks.pictures.every_n_epochs=5"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is read from or written to the user's own folders."""
    home = tmp_path / "home"
    home.mkdir()
    for name in (
        "HOME",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "WANDB_CONFIG_DIR",
        "WANDB_CACHE_DIR",
    ):
        monkeypatch.setenv(name, str(home))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return home


def test_several_loggers_by_name_and_none(execute: Execute, tmp_path: Path) -> None:
    both = execute(*TINY, "logger=[tensorboard,csv]", folder=tmp_path / "both")
    assert list((both / "tensorboard").glob("events*"))
    assert (both / "csv" / "metrics.csv").exists()
    for number, nothing in enumerate(("logger=none", "logger=[]", "logger.tensorboard=null")):
        folder = execute(*TINY, nothing, folder=tmp_path / str(number))
        assert not (folder / "tensorboard").exists()


def test_csv_goes_on_where_a_resumed_run_was_stopped(execute: Execute) -> None:
    folder = execute(*TINY, "logger=csv", PICTURES)
    first = rows_of(folder / "csv" / "metrics.csv")
    execute(*TINY, "logger=csv", "trainer.max_epochs=3", f"resume={folder}", folder=folder)
    rows = rows_of(folder / "csv" / "metrics.csv")
    epochs = [{k: v for k, v in row.items() if v} for row in first if row["epoch"]]
    assert [{k: v for k, v in row.items() if v} for row in rows[: len(epochs)]] == epochs
    assert [row["step"] for row in rows if row["final/test/f1"]] == ["12"]  # the former is obsolete
    assert [row["step"] for row in rows if row["val/f1"]] == ["3", "7", "11"]
    assert rows[-1]["final/test/f1"]
    assert "optimizer.lr" in (folder / "csv" / "hparams.yaml").read_text()


def test_an_early_stop_between_two_steps_takes_no_logger_back(execute: Execute) -> None:
    stops = ("callbacks=[early_stopping]", "callbacks.early_stopping.patience=1", "optimizer.lr=0")
    loops = ("trainer.accumulate_grad_batches=3", "trainer.val_check_interval=2")
    folder = execute(*TINY, "logger=csv", *stops, *loops)
    steps = [int(row["step"]) for row in rows_of(folder / "csv" / "metrics.csv")]
    assert steps == sorted(steps)


def test_a_table_of_a_logger_of_ones_own_receives_pictures(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    class Own(Logger):
        name, version = "own", "1"

        def log_image(self, key: str, images: list[Any], step: int) -> None:
            shown.extend([key, *images])

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            shown.extend(metrics)

        def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
            shown.extend(params)

    monkeypatch.setattr("lightning.pytorch.loggers.Own", Own, raising=False)
    target = "lightning.pytorch.loggers.Own"
    config, _ = composed(*TINY)
    config.logger = {"own": {"_target_": target}}
    [built] = build_loggers(config, Path("run")).values()
    monkeypatch.setattr("glimpse.parts.build_loggers", lambda *_: {"own": built})
    execute(*TINY, "logger=none", PICTURES)
    assert {"figures/confusion", "val/f1", "final/test/f1", "optimizer.lr"} <= set(shown)


def test_a_package_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = RequirementCache("wandb>=99")
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", missing)
    config, _ = composed(*TINY, "logger=wandb")
    with pytest.raises(UserError, match="needs the package wandb: type pip install wandb") as error:
        build_loggers(config, Path("run"))
    assert "\n" not in str(error.value)


# wandb --------------------------------------------------------------------------------------------


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    block, header = 32768, 7
    at, parts = header, b""
    while at + header <= len(content):
        if block - at % block < header:
            at += block - at % block  # padding
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + header : at + header + length]
        at += header + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def history(folder: Path) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """What the offline runs below a folder hold: the values by name, and the configuration."""
    from wandb.proto import wandb_internal_pb2

    values: dict[str, list[Any]] = {}
    config: dict[str, Any] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                values.setdefault(name, []).append(json.loads(item.value_json))
            for item in (*record.config.update, *record.run.config.update):
                config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values, config


@pytest.mark.slow
def test_wandb_offline_holds_the_run_and_goes_on_after_a_resume(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    folder = execute(*TINY, "logger=[wandb,csv]", PICTURES)
    assert "to upload: wandb sync" in capsys.readouterr().out
    values, config = history(folder)
    assert len(values["val/f1"]) == 2
    assert "final/test/f1" in values
    assert values["figures/confusion/_type"] == ["images/separated"]
    assert config["optimizer.lr"]
    [first] = folder.glob("wandb/offline-run-*")
    execute(*TINY, "logger=[wandb,csv]", "trainer.max_epochs=3", f"resume={folder}", folder=folder)
    require_no_links_out(folder)
    runs = {path.name.rpartition("-")[2] for path in folder.glob("wandb/offline-run-*")}
    assert runs == {first.name.rpartition("-")[2]}  # the same id
    assert len(history(folder)[0]["val/f1"]) == 3
    assert os.environ.get("WANDB_MODE") is None


def test_two_runs_in_one_process_are_two_runs_of_wandb(execute: Execute, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    ids = set()
    for name in ("one", "two"):
        folder = execute(*TINY, "logger=wandb", "trainer.max_epochs=1", folder=tmp_path / name)
        ids.add(json.loads((folder / "loggers.json").read_text())["wandb"])
        assert len(list(folder.glob("wandb/offline-run-*"))) == 1
    assert len(ids) == 2


# MLflow -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mlflow_holds_the_run_and_goes_on_after_a_resume(execute: Execute) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow")
    from mlflow.tracking import MlflowClient

    folder = execute(*TINY, "logger=mlflow", PICTURES)
    store = json.loads((folder / "loggers.json").read_text())
    client = MlflowClient((folder / "mlflow").resolve().as_uri())
    found = client.get_run(store["mlflow"])
    assert found.info.status == "FINISHED"
    assert found.data.params["model"] == "linear"
    assert found.data.metrics["final/test/f1"] == pytest.approx(
        json.loads((folder / "summary.json").read_text())["metrics"]["test/f1"]
    )
    pictures = {item.path for item in client.list_artifacts(store["mlflow"], "figures")}
    assert "figures/confusion.png" in pictures
    execute(*TINY, "logger=mlflow", "trainer.max_epochs=3", f"resume={folder}", folder=folder)
    assert json.loads((folder / "loggers.json").read_text()) == store
    assert len(client.get_metric_history(store["mlflow"], "val/f1")) == 3
    assert client.get_run(store["mlflow"]).data.tags["trainer.max_epochs"] == "3"
    assert not (Path.cwd() / "mlruns").exists()


def test_check_writes_nothing_for_any_logger(train: Train, tmp_path: Path) -> None:
    result = train(*TINY, "logger=[tensorboard,csv]", "check=true")
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.glob("outputs/*"))
