"""What the tests share: composing a configuration and running it in this process."""

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict
from torchvision import datasets

from glimpse import steps_ahead
from glimpse.config import experiments, lists
from glimpse.config.check import check
from glimpse.config.replacing import replaced
from glimpse.config.resolvers import register_resolvers
from glimpse.models.pretrained import Pretrained, find
from glimpse.run import run
from preloaded import Preloaded

REPOSITORY = Path(__file__).parents[1]
CONF = REPOSITORY / "conf"
TRAIN = str(REPOSITORY / "train.py")

PATCHES = ExitStack()  # which last until the tests end

# Of the libraries, not of this project; each is silenced by its text.
LIBRARY_WARNINGS = (
    r"ignore:.*LeafSpec.*:FutureWarning",
    r"ignore:.*LeafSpec.*:DeprecationWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for line in LIBRARY_WARNINGS:
        config.addinivalue_line("filterwarnings", line)
    torch.set_num_threads(1)
    if torch.cuda.is_available():  # read once, before the first matrix product of any test
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    register_resolvers()
    PATCHES.enter_context(replaced(*lists.CHANGES, *experiments.CHANGES))
    initialize_config_dir(str(CONF), version_base="1.3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def choices(group: str) -> list[str]:
    """The names of a group's files; those with an underscore are parts of others."""
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


def slow(*values: Any) -> Any:
    """A case of a parametrisation that the others stand for: `make test` leaves it to `make test-slow`."""
    return pytest.param(*values, marks=pytest.mark.slow)


def processes_of(folder: Path) -> list[int]:
    """The processes whose current folder is this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").resolve() == folder.resolve() and (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder with parts of real datasets that GLIMPSE_SAMPLES names."""
    folder = os.environ.get("GLIMPSE_SAMPLES")
    if not folder:
        pytest.skip("GLIMPSE_SAMPLES does not name a folder of real data")
    return Path(folder)


@pytest.fixture(scope="session")
def own_mounts() -> list[str]:
    """The words before a command that may mount file systems of its own, such as a small one."""
    words = ["unshare", "--mount"]
    try:
        tried = subprocess.run(
            [*words, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("there is no command unshare")
    if tried.returncode:
        pytest.skip("this user may not mount file systems")
    return words


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning sees every batch, for tests that watch each."""
    monkeypatch.setattr(steps_ahead, "LONGEST_CHUNK", 1)


@pytest.fixture
def published_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published weights of any architecture, without a download: random ones."""

    def fetch(network: Pretrained) -> Mapping[str, torch.Tensor]:
        weights: Mapping[str, torch.Tensor] = find(network.architecture, 1000).network.state_dict()
        return weights

    monkeypatch.setattr(Pretrained, "_fetch", fetch)


@pytest.fixture
def any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision takes the small copies of its sets that the tests make, whatever their checksums."""
    for module in (datasets.svhn, datasets.stl10, datasets.flowers102):
        monkeypatch.setattr(module, "check_integrity", lambda path, _md5=None: Path(path).is_file())


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    """What starts commands in processes that need not import torch again."""
    server = Preloaded(tmp_path_factory.mktemp("logs"))
    yield server
    server.close()


Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def train(preloaded: Preloaded, tmp_path: Path) -> Train:
    """`python train.py <arguments>` in `tmp_path`; keywords are environment variables."""
    return functools.partial(preloaded.run, tmp_path, TRAIN)


Execute = Callable[..., Path]


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Compose, check and run in this process; returns the run folder. Pictures, which take longer than
    most of these runs, are drawn where an override names them, the curves also where they are asked for.
    """
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def execute(*overrides: str, folder: Path | None = None, curves: bool = False) -> Path:
        drawn = any(override.startswith("callbacks.pictures.") for override in overrides)
        pictures = () if drawn else ("callbacks.pictures=null",)
        config, chosen = composed(f"data_dir={tmp_path / 'data'}", *pictures, *overrides)
        folder = folder or tmp_path / "run"
        names = {group: str(chosen[group]) for group in ("data", "model")}
        with monkeypatch.context() as patch:
            if not (drawn or curves):
                patch.setattr("glimpse.callbacks.pictures.draw_curves", lambda _trainer: None)
            run(config, folder, names)
        return folder

    return execute


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learned the digits a little; to look at, not to change."""
    folder = tmp_path_factory.mktemp("trained") / "digits-small_convnet" / "run"
    config, chosen = composed(
        "model=small_convnet", "trainer.max_epochs=2", "data.batch_size=32", "optimizer.lr=0.01"
    )
    run(config, folder, {group: str(chosen[group]) for group in ("data", "model")})
    return folder


def composed(*overrides: str) -> tuple[DictConfig, dict[str, Any]]:
    """A configuration that was checked, and which file of each group it comes from."""
    config, chosen = _composed(overrides)
    return copy.deepcopy(config), dict(chosen)


# Hydra takes most of the time of a short run to compose it, and the tests compose the same things often. Each
# choice of files is composed once, and Hydra's own function sets the values in a copy.
@functools.cache
def _composed(overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    of_groups = [(CONF / override.key_or_group).is_dir() for override in parsed]
    files = tuple(line for line, of_group in zip(overrides, of_groups, strict=True) if of_group)
    base, chosen = _base(files)
    config = copy.deepcopy(base)
    values = [
        override for override, of_group in zip(parsed, of_groups, strict=True) if not of_group
    ]
    ConfigLoaderImpl._apply_overrides_to_config(values, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glimpse.config.check.compose", _compose_again)
        check(config, chosen)
    return config, chosen


def _compose_again(_root: str, *, overrides: list[str]) -> DictConfig:
    """What `check` compares a configuration with: the choices without their values; only read."""
    return _base(tuple(overrides))[0]


@functools.cache
def _base(files: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration of a choice of files, without Hydra's part, and the file of each group."""
    config = compose("train", overrides=list(files), return_hydra_config=True)
    chosen = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, chosen
