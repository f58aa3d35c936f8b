"""A checkpoint with anything wrong in it is named in one line; nothing of it runs."""

import copy
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from conftest import composed
from glimpse.cli.main import app
from glimpse.errors import UserError
from glimpse.run import run
from glimpse.runs.trained import TrainedRun
from glimpse.saved import read_checkpoint
from makers import save_image


@pytest.fixture(scope="module")
def saved(trained_run: Path) -> dict[str, Any]:
    return read_checkpoint(trained_run / "checkpoints" / "best.ckpt")


Change = Callable[[dict[str, Any]], object]


def put(*keys: str, value: Any) -> Change:
    def change(saved: dict[str, Any]) -> None:
        for key in keys[:-1]:
            saved = saved[key]
        saved[keys[-1]] = value

    return change


def deep() -> Any:
    value: Any = 1
    for _ in range(100):
        value = [value]
    return value


def doubled() -> Any:
    """A few lists that would expand to a quadrillion."""
    value: list[Any] = []
    for _ in range(50):
        value = [value, value]
    return value


def endless() -> Any:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (put("state_dict", value={"a": torch.eye(2).to_sparse()}), "a tensor is sparse"),
        (put("classifier", value=[torch.empty(2, device="meta")]), "without data"),
        (put("glimpse", "config", "data", "x", value=doubled()), "config is not a plain mapping"),
        (put("glimpse", "config", "data", "x", value=endless()), "config is not a plain mapping"),
        (put("glimpse", value=[]), "glimpse is not a mapping"),
        (put("epoch", value="2"), "epoch is not a count"),
        (put("state_dict", value={"a": 1}), "more than named tensors"),
        (put("glimpse", "config", value=None), "config is not a plain mapping"),
        (put("glimpse", "config", "model", value=[1]), r"config\.model is not a mapping"),
        (
            put("glimpse", "config", "data", "x", value=torch.ones(1)),
            "config is not a plain mapping",
        ),
        (put("glimpse", "config", "data", "x", value=deep()), "config is not a plain mapping"),
        (put("glimpse", "config", "model", "_target_", value=3), "_target_ is missing"),
        (put("glimpse", "fingerprint", value=3), "fingerprint is not text"),
        (put("glimpse", "stored_size", value=[8]), "stored_size"),
        (put("glimpse", "spec", value={}), "spec does not have the keys"),
        (put("glimpse", "spec", "num_classes", value=10**12), "num_classes is not a count"),
        (put("glimpse", "spec", "class_names", value=["a"]), "not 10 names"),
        (put("glimpse", "spec", "height", value=-8), "not a size"),
        (put("glimpse", "spec", "channels", value=2), "expected 1 or 3"),
        (put("glimpse", "spec", "mean", value=["a"]), "1 finite numbers"),
        (put("glimpse", "spec", "std", value=[float("nan")]), "1 finite numbers"),
        (put("glimpse", "spec", "std", value=[0.0]), "standard deviation of a channel is 0"),
    ],
)
def test_what_is_wrong_in_a_checkpoint_is_named(
    tmp_path: Path, saved: dict[str, Any], change: Change, cause: str
) -> None:
    changed = copy.deepcopy(saved)
    change(changed)
    torch.save(changed, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=cause):
        TrainedRun(tmp_path / "x.ckpt")


def test_a_mapping_with_numbers_as_keys_is_plain(tmp_path: Path) -> None:
    config, _ = composed("model=linear", "trainer.max_epochs=1", "callbacks.pictures=null")
    scheduler = "lightning.pytorch.callbacks.GradientAccumulationScheduler"
    config.callbacks = {"accumulate": {"_target_": scheduler, "scheduling": {0: 2, 2: 4}}}
    run(config, tmp_path, {"data": "digits", "model": "linear"})
    assert TrainedRun(tmp_path).curves["step"] == [17]  # for 34 batches
    config.trainer.max_epochs, config.resume = 3, str(tmp_path)
    run(config, tmp_path, {"data": "digits", "model": "linear"})
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["epoch"] == 2


@pytest.mark.parametrize("value", [doubled(), endless()])
def test_what_stands_in_many_places_is_looked_at_once(
    tmp_path: Path, saved: dict[str, Any], value: Any
) -> None:
    torch.save(saved | {"callbacks": value}, tmp_path / "x.ckpt")
    assert set(read_checkpoint(tmp_path / "x.ckpt")) == set(saved)


class Touches:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, saved: dict[str, Any]) -> None:
    torch.save(saved | {"more": Touches(tmp_path / "EXECUTED")}, tmp_path / "x.ckpt")
    for command in ("predict", "evaluate", "export"):
        more = {"predict": ["."], "export": ["--to", "onnx"]}.get(command, [])
        result = CliRunner().invoke(app, [command, str(tmp_path / "x.ckpt"), *more])
        assert result.exit_code == 1
        assert "contains more than plain data" in result.stderr
    assert not (tmp_path / "EXECUTED").exists()


def test_a_compressed_checkpoint_is_refused(tmp_path: Path, saved: dict[str, Any]) -> None:
    torch.save(saved | {"zeros": torch.zeros(10_000_000)}, tmp_path / "x.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "x.ckpt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(UserError, match="it is compressed"):
        read_checkpoint(tmp_path / "bomb.ckpt")


def broken(saved: dict[str, Any], value: float) -> dict[str, Any]:
    changed = copy.deepcopy(saved)
    name = next(name for name in changed["state_dict"] if name.endswith("weight"))
    changed["state_dict"][name].view(-1)[0] = value
    return changed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_weights_that_are_not_finite_are_said(
    tmp_path: Path, saved: dict[str, Any], command: str, value: float
) -> None:
    torch.save(broken(saved, value), tmp_path / "x.ckpt")
    save_image(np.zeros((8, 8, 1), np.uint8), tmp_path / "a.png")
    more = [str(tmp_path / "a.png")] if command == "predict" else []
    result = CliRunner().invoke(app, [command, str(tmp_path / "x.ckpt"), *more])
    assert result.exit_code == 1
    assert "weight are not finite" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_answers_that_are_not_finite_are_said(
    tmp_path: Path, saved: dict[str, Any], command: str
) -> None:
    torch.save(broken(saved, 3e38), tmp_path / "x.ckpt")  # finite, but its sums are not
    save_image(np.full((8, 8, 1), 255, np.uint8), tmp_path / "a.png")
    more = [str(tmp_path / "a.png")] if command == "predict" else ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [command, str(tmp_path / "x.ckpt"), *more])
    assert result.exit_code == 1
    assert "is not finite" in result.stderr
    assert not list((tmp_path / "out").glob("*"))
