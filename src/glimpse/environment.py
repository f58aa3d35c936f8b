"""Record the environment of a run: package versions, git commit and machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from glimpse.command import command


def environment() -> dict[str, Any]:
    """The command, versions, commit and machine of the current run."""
    packages = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "numpy")
    return {
        "command": command(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in packages},
        "git": _git(),
        "host": platform.node(),
        "system": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _git() -> dict[str, Any] | None:
    """The commit and whether there are uncommitted changes; None outside a git checkout."""
    folder = Path(__file__).parent

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
