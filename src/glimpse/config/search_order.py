"""The user's own configuration files come before ours.

`model/mlp.yaml` in a folder of `--config-dir` or `hydra.searchpath` replaces our `model=mlp`.

Hydra searches the program's own folder first, so it would silently ignore such a file.
This changes one function inside Hydra 1.3, for as long as the context lasts.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath

from glimpse.config.replacing import replaced

OURS = "main"  # Hydra's names of the providers
OF_THE_USER = ("command-line", "hydra.searchpath in command-line", "hydra.searchpath in main")

_ORIGINAL = ConfigRepository.initialize_sources


@contextmanager
def own_files_first() -> Iterator[None]:
    """Let Hydra look into the user's folders before ours inside this context."""
    with replaced(ConfigRepository, "initialize_sources", _initialize_sources):
        yield


def _initialize_sources(self: ConfigRepository, config_search_path: ConfigSearchPath) -> None:
    places = list(config_search_path.get_path())
    own = [place for place in places if place.provider in OF_THE_USER]
    others = [place for place in places if place.provider not in OF_THE_USER]
    start = next(n for n, place in enumerate(others) if place.provider == OURS)
    ordered = ConfigSearchPathImpl()
    ordered.config_search_path = [*others[:start], *own, *others[start:]]
    _ORIGINAL(self, ordered)
