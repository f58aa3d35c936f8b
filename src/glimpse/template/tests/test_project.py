"""The network fits the images, and the command trains it."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from glimpse.data.spec import ImageSpec
from my_project.net import SmallNet

PROJECT = Path(__file__).parents[1]


def test_the_network_returns_a_logit_for_each_class() -> None:
    spec = ImageSpec(3, ("a", "b", "c"), 1, 16, 16, (0.0,), (1.0,))
    assert SmallNet(spec, width=4)(torch.zeros(2, 1, 16, 16)).shape == (2, 3)


def test_the_command_learns_the_stripes(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "trainer=cpu", f"output_dir={tmp_path}"]
    subprocess.run(command, cwd=PROJECT, check=True)
    [summary] = tmp_path.glob("stripes-small_net/*/summary.json")
    assert json.loads(summary.read_text())["metrics"]["test/acc"] > 0.6
