"""How torch's threads wait is decided before torch is imported, unless the user has decided."""

import os
import subprocess
import sys

import pytest

CODE = (
    "import os, sys; from glimpse import launch; launch.main(lambda: None); "
    "print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
)


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")]
)
def test_threads_sleep_unless_the_user_says_otherwise(given: dict[str, str], expected: str) -> None:
    variables = {name: v for name, v in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    result = subprocess.run(
        [sys.executable, "-c", CODE], env=variables, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", expected]
