"""How torch's threads wait is decided before torch is imported, unless the user has decided."""

import os
import subprocess
import sys

import pytest

CODE = (
    "import os, sys; from glimpse import launch; launch.main(lambda: None); "
    "print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "10000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(
    given: dict[str, str], expected: str
) -> None:
    unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    variables = {name: v for name, v in os.environ.items() if name not in unset} | given
    result = subprocess.run(
        [sys.executable, "-c", CODE], env=variables, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", expected]
