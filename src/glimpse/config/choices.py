"""List the choices of a group: without parts of files such as conf/data/_common.yaml, and quickly.

Hydra takes every file of a group for a choice: in its help, in completion and in its errors. For
its help it also copies all configuration files that it has read, once for each of a hundred lists.
`CHANGES` replaces two functions inside Hydra 1.3 while compose.py composes.
"""

from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType

_ORIGINAL = ConfigRepository.get_group_options
_ORIGINAL_OF_LOADER = ConfigLoaderImpl.get_group_options


def _get_group_options(self: ConfigRepository, *args: Any, **kwargs: Any) -> list[str]:
    return [name for name in _ORIGINAL(self, *args, **kwargs) if not name.startswith("_")]


def _get_group_options_of_loader(
    self: ConfigLoaderImpl,
    group_name: str,
    results_filter: ObjectType | None = ObjectType.CONFIG,
    config_name: str | None = None,
    overrides: list[str] | None = None,
) -> list[str]:
    if config_name is None and not overrides:  # no search path to add, so no copy is needed
        return self.repository.get_group_options(group_name, results_filter)
    return _ORIGINAL_OF_LOADER(self, group_name, results_filter, config_name, overrides)


CHANGES = (
    (ConfigRepository, "get_group_options", _get_group_options),
    (ConfigLoaderImpl, "get_group_options", _get_group_options_of_loader),
)
