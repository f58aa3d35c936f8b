"""Compose and check the configuration without `train.py`."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from glimpse.config.check import check
from glimpse.config.folder import config_folder
from glimpse.config.quoting import as_typed
from glimpse.config.run_names import register_resolvers


def composed(overrides: Sequence[str]) -> DictConfig:
    """Compose and check the configuration that `python train.py <overrides>` would run.

    Raises:
        Exception: the overrides contain a mistake. `explain` turns any such error into one line.
    """
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides=as_typed(overrides), return_hydra_config=True)
        choices = config.hydra.runtime.choices
        with open_dict(config):
            del config["hydra"]
        check(config, choices)
    return config
