"""Compose, check and record the configuration without `train.py`; leave Hydra as it was."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from glimpse.config import choices, experiments, lists, search_order
from glimpse.config.check import check
from glimpse.config.folder import ROOT, config_folder
from glimpse.config.own_files import named_if_unreadable, require_own_folder
from glimpse.config.quoting import quote_texts
from glimpse.config.replacing import replaced
from glimpse.config.resolvers import register_resolvers
from glimpse.files import write_text

OF_A_PROCESS = (GlobalHydra, HydraConfig, JobRuntime, version.VersionBase)  # Hydra's singletons
CHANGES = (*lists.CHANGES, *search_order.CHANGES, *experiments.CHANGES, *choices.CHANGES)


def composed(overrides: Sequence[str], *, config_dir: Path | None = None) -> DictConfig:
    """Compose and check the configuration that `python train.py <overrides>` would run.

    Args:
        overrides: As on the command line.
        config_dir: A folder of configuration files in addition to ours, as with `--config-dir`.

    Raises:
        Exception: the overrides contain a mistake. `explain` turns any such error into one line.
    """
    with hydra_for(config_dir):
        config, _ = composed_with_hydra(overrides)
    return config


def composed_with_hydra(
    overrides: Sequence[str], *, root: str = ROOT
) -> tuple[DictConfig, DictConfig]:
    """Compose and check a configuration inside `hydra_for`; returns it, and Hydra's own part."""
    whole = compose(root, overrides=quote_texts(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(whole)
    config = whole.copy()
    with open_dict(config):
        del config["hydra"]
    check(config, whole.hydra.runtime.choices, root=root, searchpath=whole.hydra.searchpath)
    return config, whole.hydra


def write_record(
    folder: Path, config: DictConfig, hydra: Mapping[str, Any] | DictConfig, overrides: ListConfig
) -> None:
    """Write what Hydra writes into a run folder, for `resume=` and for reports.

    The folder is the run folder's `.hydra`, which is created. Hydra's own part is not in `config`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
    write_text(folder / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
    write_text(folder / "overrides.yaml", OmegaConf.to_yaml(overrides))


@contextmanager
def hydra_adapted(folders: Sequence[Path]) -> Iterator[None]:
    """Hydra with our changes to its functions; errors name configuration files that cannot be read."""
    with replaced(*CHANGES), named_if_unreadable(folders):
        yield


@contextmanager
def hydra_for(config_dir: Path | None = None) -> Iterator[None]:
    """Initialise Hydra with our configuration files, and restore what was initialised before.

    Raises:
        UserError: `config_dir` is not a folder.
    """
    register_resolvers()
    before = {kind: Singleton._instances.pop(kind, None) for kind in OF_A_PROCESS}
    try:
        version.setbase("1.3")
        places = create_config_search_path(str(config_folder()))
        if config_dir is not None:
            require_own_folder(config_dir, "config_dir=")
            place = f"file://{config_dir.resolve()}"
            places.prepend("command-line", place, SearchPathQuery(provider="schema"))
        folders = [config_folder(), *([config_dir] if config_dir else [])]
        with hydra_adapted(folders):
            Hydra.create_main_hydra2(task_name=ROOT, config_search_path=places)
            yield
    finally:
        for kind, instance in before.items():
            Singleton._instances.pop(kind, None)
            if instance is not None:
                Singleton._instances[kind] = instance
