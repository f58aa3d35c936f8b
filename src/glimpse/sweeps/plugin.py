"""The interface to Hydra that our two sweepers share. Nothing heavy is imported."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from glimpse.errors import UserError


class CommandSweeper(Sweeper):
    """A sweeper that receives the command line as it was typed.

    Args:
        params: Overrides to sweep, from configuration files; they come before the typed ones.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep that the command line describes.

        Raises:
            UserError: it has a mistake, or not all of its jobs have finished.
            Interrupted: it was told to stop.
        """
        assert self.hydra_context is not None  # `setup` was called
        assert self.config is not None
        assert self.launcher is not None
        for key, value in self.config.sweep.items():
            if not isinstance(value, bool):
                raise UserError(f"sweep.{key}={value}: expected true or false")
        _require_name_as_typed(arguments, str(self.config.name))
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        self.run(lines, self.hydra_context, self.config, self.launcher)

    @abstractmethod
    def run(
        self, lines: Sequence[str], context: HydraContext, config: DictConfig, launcher: Launcher
    ) -> None:
        """Run the jobs that the overrides in `lines` describe."""


def _require_name_as_typed(arguments: Sequence[str], name: str) -> None:
    """Require Hydra to have read `name` as it was typed. It reads 1_000 as 1000, for example.

    Raises:
        UserError: it reads something else.
    """
    typed = [line for line in arguments if line.startswith("name=")]
    value = typed[-1].partition("=")[2] if typed else name
    if not set(value) & set("$,(\\") and value.strip("'\"") != name:
        raise UserError(
            f"name={value}: Hydra reads it as {name}: type \"name='{value}'\", or another name"
        )
