"""Hide parts of configuration files, such as conf/data/_common.yaml, wherever Hydra lists the choices of a group.

Hydra takes every file of a group for a choice: in its help, in completion and in its errors.
This changes one function inside Hydra 1.3, for as long as the context lasts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.config_repository import ConfigRepository

from glimpse.config.replacing import replaced

_ORIGINAL = ConfigRepository.get_group_options


@contextmanager
def parts_hidden() -> Iterator[None]:
    """Let Hydra list only files whose names do not begin with an underscore inside this context."""
    with replaced(ConfigRepository, "get_group_options", _get_group_options):
        yield


def _get_group_options(self: ConfigRepository, *args: Any, **kwargs: Any) -> list[str]:
    return [name for name in _ORIGINAL(self, *args, **kwargs) if not name.startswith("_")]
