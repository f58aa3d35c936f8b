"""The plugins that add our sweeps to Hydra, which looks for them only in `hydra_plugins`.

`hydra/sweeper=grid` and `hydra/launcher=local` are the defaults of conf/train.yaml. The work is
done in glimpse/sweeps. Hydra imports this file before each command, so nothing heavy may be
imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from glimpse.sweeps.plugin import CommandSweeper


@dataclass
class GridConf:
    """The settings of hydra/sweeper=grid."""

    _target_: str = "hydra_plugins.glimpse_sweeps.GridSweeper"
    params: dict[str, str] | None = None  # overrides to sweep, for configuration files


@dataclass
class LocalConf:
    """The settings of hydra/launcher=local."""

    _target_: str = "hydra_plugins.glimpse_sweeps.LocalLauncher"
    n_jobs: int = 1  # jobs at the same time


class LocalLauncher(Launcher):
    """Runs jobs on this machine, `n_jobs` at the same time. Our sweepers open a Runner with it."""

    def __init__(self, n_jobs: int = 1) -> None:
        self.n_jobs = n_jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run a batch of jobs for a sweeper that is not ours."""
        from glimpse.sweeps.launching import run_batch

        return run_batch(job_overrides, initial_job_idx, self.hydra_context, self.config, self)


class GridSweeper(CommandSweeper):
    """Runs every combination of the values listed on the command line."""

    def run(
        self, lines: Sequence[str], context: HydraContext, config: DictConfig, launcher: Launcher
    ) -> None:
        from glimpse.sweeps.grid import run_grid

        run_grid(lines, context, config, launcher)


STORE = ConfigStore.instance()
STORE.store(group="hydra/sweeper", name="grid", node=GridConf, provider="glimpse")
STORE.store(group="hydra/launcher", name="local", node=LocalConf, provider="glimpse")
