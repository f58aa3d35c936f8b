"""The plugin that adds `hydra/sweeper=search` to Hydra. The work is done in glimpse/search.

Hydra imports this file before each command, so nothing heavy may be imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from glimpse.sweeps.plugin import CommandSweeper


@dataclass
class SearchConf:
    """The settings of hydra/sweeper=search."""

    _target_: str = "hydra_plugins.glimpse_search.SearchSweeper"
    n_trials: int = 20  # in all: the same command continues until there are so many
    seeds: int = 1  # trainings of a trial, with seed, seed + 1, …; their mean is its score
    pruner: str = "none"  # median, hyperband or halving: stop trials that lag behind
    storage: str = "sqlite"  # journal: for folders that several machines share
    params: dict[str, str] | None = None  # overrides to search, for configuration files
    trial: int | None = None  # set by the search for the jobs that a pruner watches
    until: int | None = None  # likewise: the number of epochs after which a job waits


class SearchSweeper(CommandSweeper):
    """Searches the values that the command line describes, with Optuna."""

    def __init__(self, params: dict[str, str] | None = None, **_settings: Any) -> None:
        super().__init__(params)  # the settings are read from the configuration

    def run(
        self, lines: Sequence[str], context: HydraContext, config: DictConfig, launcher: Launcher
    ) -> None:
        from glimpse.search.starting import run_search

        run_search(lines, context, config, launcher)


ConfigStore.instance().store(
    group="hydra/sweeper", name="search", node=SearchConf, provider="glimpse"
)
