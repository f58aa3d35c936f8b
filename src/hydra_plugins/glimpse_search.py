"""What Hydra finds by itself of our search: `hydra/sweeper=search`. The work is done in glimpse/search.

Hydra imports this file before each command, so nothing heavy may be imported.
"""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


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


class SearchSweeper(Sweeper):
    """Searches the values that the command line describes, with Optuna."""

    def __init__(self, params: dict[str, str] | None = None, **_settings: Any) -> None:
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search that the command line describes."""
        from glimpse.search.story import run_search

        assert self.hydra_context is not None  # `setup` was called
        assert self.config is not None
        assert self.launcher is not None
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        run_search(lines, self.hydra_context, self.config, self.launcher)


ConfigStore.instance().store(
    group="hydra/sweeper", name="search", node=SearchConf, provider="glimpse"
)
