"""A run imports nothing that it does not use, and whoever wants those modules gets them."""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _use_grad_for_differentiable

from glimpse.lean_imports import DEFERRED, SPARED, make_optimizers_without_compiler

RUN = """
import sys
from glimpse import launch, lean_imports
from glimpse.scripting import process_unchanged
from glimpse.sweeps.worker import everything_as_before
sys.argv = ["train.py", "trainer.fast_dev_run=true", "trainer=cpu", "model=linear", "data_dir=.", "output_dir=."]
with process_unchanged(), everything_as_before():
    assert launch.main() == 0
names = {name for deferred in lean_imports.DEFERRED.values() for name in deferred}
assert not names & set(sys.modules), names & set(sys.modules)
"""
AFTERWARDS = """
import scipy.stats, scipy.signal, torch
assert scipy.signal.windows.hamming(3)[1] == 1
from torchmetrics.functional.audio import permutation_invariant_training
from sklearn.metrics import label_ranking_average_precision_score as ranked
assert ranked([[0, 1]], [[1, 2]]) == 1
from sklearn.preprocessing import PowerTransformer, SplineTransformer
assert PowerTransformer("box-cox").fit([[1.0], [2.0], [4.0]]).lambdas_.shape == (1,)
assert SplineTransformer().fit_transform([[1.0], [2.0], [4.0]]).shape == (3, 7)
from sklearn.metrics import auc, consensus_score
assert auc([0, 1], [1, 1]) == 1
from lightning.fabric.wrappers import _unwrap_compiled
from lightning.pytorch.utilities.compile import to_uncompiled
linear = torch.nn.Linear(2, 2)
optimizer = torch.optim.Adam(linear.parameters())
assert _unwrap_compiled(linear) == (linear, None)
assert "torch._dynamo" not in sys.modules
assert _unwrap_compiled(torch.compile(linear))[0] is linear
assert "torch._dynamo" in sys.modules
optimizer.zero_grad()
optimizer.step()
from torchvision.ops import roi_align
assert isinstance(roi_align.__globals__["is_compile_supported"]("cpu"), bool)
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    torch.ones(2, 2) @ torch.ones(2, 2)
assert counter.get_total_flops() == 16
"""
BEFORE = """
import scipy.signal as signal, scipy.stats as stats, torch._dynamo as dynamo
import glimpse, lightning.pytorch, sklearn.model_selection
import scipy.signal, scipy.stats, torch._dynamo
assert (signal, stats, dynamo) == (scipy.signal, scipy.stats, torch._dynamo)
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [RUN + AFTERWARDS, BEFORE])
def test_deferred_modules_are_imported_by_whoever_wants_them(program: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


# Each way of writing that imports a module: otherwise the entry can go.
WRITTEN = {"scipy.stats": ("scipy.stats", "import sparse, stats"), "torch._dynamo": ("disable",)}


@pytest.mark.parametrize("importer", DEFERRED)
def test_the_libraries_still_import_them(importer: str) -> None:
    spec = importlib.util.find_spec(importer)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    for module in DEFERRED[importer]:
        assert any(text in source for text in (module, *WRITTEN.get(module, ())))


def test_optimizers_still_import_the_compiler() -> None:
    """Otherwise `make_optimizers_without_compiler` can go."""
    assert "import torch._dynamo" in inspect.getsource(_use_grad_for_differentiable)
    assert "import torch._dynamo" in inspect.getsource(torch._disable_dynamo)
    for name in SPARED:
        assert getattr(torch.optim.Optimizer, name).__wrapped__


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimizers_step_as_before(kind: type[torch.optim.Optimizer]) -> None:
    make_optimizers_without_compiler()
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = kind(network.parameters(), lr=0.1)  # type: ignore[call-arg]
    network(torch.ones(1, 3)).sum().backward()
    before = network.weight.detach().clone()
    assert optimizer.step(lambda: torch.tensor(2.0)) == 2
    assert not torch.equal(network.weight, before)
    assert torch.is_grad_enabled()
    assert network.weight.is_leaf
