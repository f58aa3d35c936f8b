"""`model.weights=` for any network: every wrapping, a new head, and what is refused."""

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from conftest import REPOSITORY, Execute, composed
from glimpse import load
from glimpse.errors import UserError
from glimpse.models.weights import load_weights, read_weights
from glimpse.network import build_network

State = dict[str, Tensor]


def network(num_classes: int = 5, width: int = 6, *, depth: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[tuple[str, nn.Module]] = [("stem", nn.Conv2d(3, width, 3))]
    blocks = nn.Sequential(*(nn.Conv2d(width, width, 3) for _ in range(depth)))
    layers += [("blocks", blocks), ("norm", nn.BatchNorm2d(width))]
    net = nn.Sequential()
    for name, layer in layers:
        net.add_module(name, layer)
    net.add_module("fc", nn.Linear(width, num_classes))
    return net


def loaded(found: State, num_classes: int = 2, **options: int) -> tuple[nn.Module, str]:
    net = network(num_classes, **options)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net, load_weights(net, found, "file", num_classes=num_classes)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def state() -> State:
    return dict(network().state_dict())


WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: s}}},
    "model": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9)},
    "model_state_dict": lambda s: {"epoch": 1, "model_state_dict": s, "loss": torch.tensor(1.0)},
    "unknown_key": lambda s: {"epoch": 1, "my_weights": s},
    "data_parallel": lambda s: prefixed(s, "module."),
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "lightning": lambda s: {"state_dict": prefixed(s, "model.") | {"loss.weight": torch.ones(5)}},
    "nested": lambda s: {"module": prefixed(prefixed(s, "_orig_mod."), "module.model.")},
    "own_prefix": lambda s: {"state_dict": prefixed(s, "encoder_q.")},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_loads_all_layers_but_the_head(
    tmp_path: Path, state: State, wrapping: str
) -> None:
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "weights.pth")  # type: ignore[no-untyped-call]
    net, line = loaded(dict(read_weights(tmp_path / "weights.pth").tensors))
    assert line.startswith(
        "file: 3 of 4 layers loaded; fc is new for 2 classes, the file has 5 classes"
    )
    assert ("1 layer of the file not used (loss)" in line) is (wrapping == "lightning")
    for name, tensor in net.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, state[name]), name


def test_safetensors_and_a_head_for_the_same_classes(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    net, line = loaded(dict(read_weights(tmp_path / "weights.safetensors").tensors), num_classes=5)
    assert line == "file: 4 of 4 layers loaded"
    assert torch.equal(net.state_dict()["fc.weight"], state["fc.weight"])


def test_the_head_is_the_layer_that_differs_where_another_has_as_many_outputs() -> None:
    def two_layers(num_classes: int) -> nn.ModuleDict:
        return nn.ModuleDict({"head": nn.Linear(4, num_classes), "body": nn.Linear(3, 4)})

    line = load_weights(two_layers(4), two_layers(7).state_dict(), "file", num_classes=4)
    assert "head is new for 4 classes, the file has 7 classes" in line


def test_a_network_whose_own_names_look_like_a_wrapper_keeps_them(state: State) -> None:
    net = nn.ModuleDict({"model": network(5)})
    line = load_weights(net, prefixed(state, "model."), "file", num_classes=5)
    assert "4 of 4 layers loaded" in line


def test_a_file_without_a_head_is_enough(state: State) -> None:
    body = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    _, line = loaded(body | {"projector.weight": torch.ones(2, 2)})
    assert "3 of 4 layers loaded; fc is new for 2 classes, the file has none" in line
    assert "1 layer of the file not used (projector)" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s | {"stem.weight": torch.zeros(6, 3, 5, 5)},
            "stem.weight is 6×3×5×5, expected",
        ),
        (
            lambda s: {k: v for k, v in s.items() if k != "blocks.0.weight"},
            "blocks.0.weight is missing, expected 6×6×3×3",
        ),
        (lambda s: {"a": torch.ones(1), "b.c": torch.ones(1)}, "is missing"),
        (
            lambda s: s | {"blocks.0.bias": torch.full((6,), float("nan"))},
            "blocks.0.bias contains numbers that are not finite, from a training that diverged",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_counted(state: State, change: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        loaded(change(state))  # type: ignore[operator]
    assert "of 4 layers fit" in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_of_a_deeper_network_are_refused() -> None:
    with pytest.raises(UserError, match=r"blocks\.1\.weight is 6×6×3×3, expected no such layer"):
        loaded(dict(network(2, depth=2).state_dict()))


def test_a_pickled_module_is_refused_without_running_it(tmp_path: Path) -> None:
    mark = tmp_path / "EXECUTED"

    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(mark),)

    torch.save(torchvision.models.get_model("shufflenet_v2_x0_5"), tmp_path / "whole.pth")
    with pytest.raises(
        UserError, match=r"contains code \(torchvision\S+ShuffleNetV2\), which is not run"
    ):
        read_weights(tmp_path / "whole.pth")
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(UserError, match="contains code"):
        read_weights(tmp_path / "harmful.pth")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [([1], "contains a list"), ({"epoch": 3}, "contains epoch"), ({}, "contains nothing")],
)
def test_a_file_without_weights_is_named(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "weights.pth")


def test_a_run_starts_from_another_run_with_other_classes(
    execute: Execute, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("data=digits", "model=small_convnet", "trainer=cpu", "logger=none", "test=false")
    first = execute(*words, "trainer.max_epochs=1", folder=tmp_path / "first")
    capsys.readouterr()
    execute(
        *words, "trainer.max_epochs=1", "data.classes=['3','5']", f"model.weights={first}",
        "optimizer.lr=0", folder=tmp_path / "second",
    )  # fmt: skip
    assert "is new for 2 classes, the file has 10 classes" in capsys.readouterr().out
    one, other = (
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    )
    same = [name for name in one if one[name].shape == other[name].shape]
    assert same
    assert all(torch.equal(one[name], other[name]) for name in same)


def test_the_documents_three_lines_load_a_checkpoint(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY / "docs" / "models.md").read_text()
    [lines] = re.findall(r"```python\n(saved = .*?)```", page, re.S)
    assert len(lines.splitlines()) == 3
    run = load(trained_run)
    expected = run.model.state_dict()
    config, _ = composed("model=small_convnet")
    plain = build_network(config.model, run.spec)
    monkeypatch.chdir(trained_run / "checkpoints")
    exec(lines, {"torch": torch, "network": plain})
    assert all(torch.equal(plain.state_dict()[name], expected[name]) for name in expected)
