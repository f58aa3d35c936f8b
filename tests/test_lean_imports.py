"""torchmetrics comes without scipy.signal, and scipy.signal stays what it is."""

import subprocess
import sys

import pytest

CHECK = """
import sys, glimpse, lightning.pytorch
assert "scipy.signal" not in sys.modules
import scipy.signal
from torchmetrics.functional.audio import permutation_invariant_training
assert scipy.signal.windows.hamming(3)[1] == 1
"""
BEFORE = "import scipy.signal as before, glimpse, lightning.pytorch, scipy.signal; assert before is scipy.signal"


@pytest.mark.parametrize("program", [CHECK, pytest.param(BEFORE, marks=pytest.mark.slow)])
def test_scipy_signal_is_imported_by_whoever_wants_it(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_torchmetrics_still_asks_for_it() -> None:
    """Otherwise lean_imports.py can go."""
    program = "import sys, lightning.pytorch; assert 'scipy.signal' in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
