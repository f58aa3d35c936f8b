"""Record the environment of a run: all that its numbers may depend on besides its configuration.

It holds versions, the commit with uncommitted changes, machine, device and threads. It holds no
secrets: only the environment variables in `VARIABLES`, and addresses without user names and
passwords.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from glimpse.command import command
from glimpse.distributed.place import Place
from glimpse.threads import THREADS

# Variables that choose kernels, the order of sums, or the number of threads.
VARIABLES = (
    THREADS, "MKL_NUM_THREADS", "MKL_CBWR", "OPENBLAS_NUM_THREADS", "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "PYTHONHASHSEED",
)  # fmt: skip
MAX_DIFF = 200_000  # characters of the uncommitted changes that are kept
MAX_UNTRACKED = 100  # names of files
OID = "# branch.oid "  # precedes the commit in the output of git status
CREDENTIALS = re.compile(r"(?<=://)[^/\s@]*@")  # of an address such as https://user:token@host/


def environment(
    *, device: str, precision: str, place: Place, packages: Iterable[str] = ()
) -> dict[str, Any]:
    """The command, versions, code and machine of the current run, as plain data.

    Args:
        device: "cpu", "cuda" or "mps".
        precision: The precision that was chosen.
        place: This process among those of the run.
        packages: The user's own packages that the configuration names.
    """
    own_code = {name: _checkout(Path(file).parent) for name in packages if (file := _file(name))}
    return {
        "command": [CREDENTIALS.sub("", word) for word in command()],
        "versions": {"python": platform.python_version()} | _versions(),
        "git": _checkout(Path(__file__).parent),
        "own_code": own_code,
        "host": platform.node(),
        "system": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": place.world_size,
        "nodes": place.num_nodes,
        "device": device,
        "precision": precision,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if device == "cuda" else None,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _versions() -> dict[str, str]:
    """The version of every installed package, taken from the names of the metadata folders.

    If a package is installed twice, the version that Python imports counts. Reading the metadata
    itself would take a second.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(sys.path):
        names: list[str] = []
        with suppress(OSError):  # a zip archive, or a folder that is missing or cannot be read
            names = os.listdir(folder or ".")
        for name in sorted(name for name in names if name.endswith(".dist-info")):
            package, _, version = name.removesuffix(".dist-info").partition("-")
            found.setdefault(package.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))


def _file(package: str) -> str | None:
    """The file of a package; None if it has no file."""
    try:
        found = find_spec(package)
    except (ImportError, ValueError):
        return None
    return found.origin if found is not None and found.has_location else None


def _checkout(folder: Path) -> dict[str, Any] | None:
    """The commit of a folder's git checkout, with uncommitted changes; None outside a checkout."""

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        found = subprocess.run(command, capture_output=True, check=True).stdout
        return found.decode(errors="backslashreplace").strip()

    try:
        lines = ask("status", "--porcelain=v2", "--branch", "--untracked-files=all").splitlines()
        commit = next(line for line in lines if line.startswith(OID)).removeprefix(OID)
        changes = [line for line in lines if not line.startswith("#")]
        if commit == "(initial)":
            return None
        if not changes:
            return {"commit": commit, "dirty": False}
        plain = ("--no-color", "--no-ext-diff", "--no-textconv")
        diff = CREDENTIALS.sub("", ask("diff", "HEAD", "--no-relative", *plain))
    except (OSError, subprocess.CalledProcessError):
        return None
    untracked = [line[2:] for line in changes if line.startswith("? ")]
    return {
        "commit": commit,
        "dirty": True,
        "diff": _shortened(diff),
        "untracked": untracked[:MAX_UNTRACKED],
        "num_untracked": len(untracked),
    }


def _shortened(diff: str) -> str:
    if len(diff) <= MAX_DIFF:
        return diff
    return f"{diff[:MAX_DIFF]}\n[{len(diff) - MAX_DIFF:,} more characters are not kept]"
