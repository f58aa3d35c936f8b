"""compile=…: the network and its loss become one graph, for every loss; the results stay."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Execute, choices, slow
from test_resume import assert_same

# torch warns of the first release of Python 3.13 only.
pytestmark = pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
SMALL = (
    "data=synthetic", "data.shape=[3,8,8]", "data.num_classes=3", "data.num_train=64",
    "data.num_val=32", "data.batch_size=16", "model=small_convnet", "trainer=cpu",
    "trainer.max_epochs=1", "logger=none", "test=false",
)  # fmt: skip
# Of each loss: what its graph computes, and what else changes the loss or the gradients.
LOSSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cross_entropy": (
        "cross_entropy",
        ("loss.label_smoothing=0.1", "trainer.precision=bf16-mixed"),
    ),
    "focal": ("expm1", ("loss.class_weights=[1,2,3]", "trainer.precision=bf16-true")),
    "mse": ("mse_loss", ("augment=cutmix", "callbacks=[ema]")),
    "nll": ("log_softmax", ("augment=mixup", "trainer.gradient_clip_val=0.1")),
}


def test_every_loss_is_tried() -> None:
    assert set(LOSSES) == set(choices("loss"))


@pytest.mark.parametrize(
    "loss", [loss if loss == "cross_entropy" else slow(loss) for loss in LOSSES]
)
def test_the_loss_is_compiled_with_the_network(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    graphs: list[str] = []

    def as_it_is(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        graphs.append(graph.code)
        return graph.forward

    compiled = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda given, mode, dynamic: compiled(given, backend=as_it_is, dynamic=dynamic),
    )
    computes, options = LOSSES[loss]
    whole = (*SMALL, f"loss={loss}", *options)
    plain = execute(*whole, folder=tmp_path / "plain")
    assert not graphs
    assert_same(plain, execute(*whole, "compile=default", folder=tmp_path / "compiled"))
    assert graphs
    assert all("conv2d" in graph and computes in graph for graph in graphs)
