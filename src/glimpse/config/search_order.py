"""The user's own configuration files come before ours.

`model/mlp.yaml` in a folder of `--config-dir` or `hydra.searchpath` replaces our `model=mlp`.

Hydra searches the program's own folder first, so it would silently ignore such a file.
`CHANGES` replaces one function inside Hydra 1.3 while compose.py composes.
"""

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath

OURS = "main"  # Hydra's names of the providers
OF_THE_USER = ("command-line", "hydra.searchpath in command-line", "hydra.searchpath in main")

_ORIGINAL = ConfigRepository.initialize_sources


def _initialize_sources(self: ConfigRepository, config_search_path: ConfigSearchPath) -> None:
    places = list(config_search_path.get_path())
    own = [place for place in places if place.provider in OF_THE_USER]
    others = [place for place in places if place.provider not in OF_THE_USER]
    start = next(n for n, place in enumerate(others) if place.provider == OURS)
    ordered = ConfigSearchPathImpl()
    ordered.config_search_path = [*others[:start], *own, *others[start:]]
    _ORIGINAL(self, ordered)


CHANGES = ((ConfigRepository, "initialize_sources", _initialize_sources),)
