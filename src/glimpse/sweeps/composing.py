"""Compose the configuration of each job or, thousands of times faster, only its settings.

Hydra takes about a tenth of a second to compose a configuration. To recognise a finished job, its
settings as text are enough. Jobs that choose the same files differ only in single values. Each
choice of files is therefore composed once, and the values are set in the result.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict

from glimpse.config.check import check
from glimpse.config.explain import explain
from glimpse.errors import UserError
from glimpse.runs.settings import as_text, flat_settings
from glimpse.signals import interrupts_as_signals
from glimpse.sweeps.jobs import Job, parsed
from glimpse.sweeps.state import Found, State, look


class Composer:
    """Composes the jobs of one sweep.

    Args:
        loader: Hydra's loader.
        config: The sweep's own configuration, as Hydra composed it.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self.config = config
        self.name = str(config.name)
        self.folder = Path(str(config.hydra.sweep.dir))  # resolved once: the name may be the time
        self._loader = loader
        self._groups = set(loader.list_groups(""))
        self._bases: dict[tuple[str, ...], Mapping[str, str]] = {}
        self._known: dict[tuple[str, ...], dict[str, Any]] = {}

    def folder_of(self, job: Job) -> Path:
        """The job's run folder."""
        return self.folder / job.name

    def look(self, job: Job) -> Found:
        """The job's state in its run folder; refused if its settings cannot be composed."""
        try:
            return look(self.folder_of(job), self.settings(job))
        except Exception as error:
            return Found(State.REFUSED, explain(error, job.overrides))

    @interrupts_as_signals()
    def compose(self, job: Job) -> DictConfig:
        """The job's complete configuration, with `hydra` in it, not checked yet.

        Raises:
            Exception: Hydra's, if the overrides do not fit; `explain` turns it into one line.
        """
        config: DictConfig = self._loader.load_sweep_config(self.config, list(job.overrides))
        with open_dict(config):
            config.name = self.name
            config.hydra.job.id = config.hydra.job.num = job.number
            config.hydra.sweep.dir = str(self.folder)
            config.hydra.sweep.subdir = job.name
        return config

    @interrupts_as_signals()
    def checked(self, job: Job) -> DictConfig:
        """Compose the job's configuration, and check it.

        Raises:
            UserError: the configuration contains a mistake.
        """
        config = self.compose(job)
        check(
            without_hydra(config),
            config.hydra.runtime.choices,
            root=config.hydra.job.config_name,
            searchpath=config.hydra.searchpath,
            known_before=self._known,
        )
        return config

    @interrupts_as_signals()
    def settings(self, job: Job) -> Mapping[str, str]:
        """The job's settings, in the form of `runs.settings.flat_settings`.

        Raises:
            Exception: as for `compose`.
        """
        values = [parsed(line) for line in job.overrides if self.only_sets_a_value(line)]
        rest = tuple(line for line in job.overrides if not self.only_sets_a_value(line))
        base = self._bases.get(rest)
        if base is None:
            plain = Job(job.number, rest, (), job.name)
            base = self._bases[rest] = settings_of_config(self.compose(plain))
        if any(line.key_or_group not in base for line in values):
            return settings_of_config(self.compose(job))
        return {**base, **{line.key_or_group: as_text(line.value()) for line in values}}

    def only_sets_a_value(self, line: str) -> bool:
        """Whether an override sets a single value, and does not decide which files are read."""
        override = parsed(line)
        return (
            override.type is OverrideType.CHANGE
            and override.package is None
            and "/" not in override.key_or_group
            and override.key_or_group not in self._groups
            and not isinstance(override.value(), dict)
        )


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of a configuration without Hydra's own part."""
    copy = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.set_struct(copy, True)
    return copy


def settings_of_config(config: DictConfig) -> dict[str, str]:
    """The settings of a composed configuration, in the form of `runs.settings.flat_settings`."""
    return flat_settings(OmegaConf.to_yaml(without_hydra(config)))


def require_folder_name(name: Any) -> None:
    """Reject a sweep's name that cannot be the name of a folder.

    Raises:
        UserError: it is empty, leads elsewhere or is too long.
    """
    parts = Path(str(name)).parts
    if not parts or ".." in parts or Path(str(name)).is_absolute():
        raise UserError(f"name={name}: expected the name of a folder, such as name=first_try")
    if any(len(part.encode(errors="surrogateescape")) > 200 for part in parts):
        raise UserError(f"name={str(name)[:30]}…: expected at most 200 bytes")
