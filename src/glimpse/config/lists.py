"""Lists of choices: `augment=[flip,cutmix]` puts each file under its own name, `augment.cutmix`.

Hydra puts every file of a group into the same place, so that two files with a `_target_` at their
top would be mixed into one. A file of a list is therefore placed under its name, unless it names
its parts itself, as conf/callbacks/early_stopping.yaml does. Hydra also leaves lists out of
`hydra.runtime.choices`; here they are entered as they would be typed. Anything but a name in a list
is rejected here, because Hydra would fail with an unclear error.

`CHANGES` replaces three functions inside Hydra 1.3 while compose.py composes.
"""

from typing import Any

from hydra._internal import defaults_list
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault
from omegaconf import DictConfig, OmegaConf

from glimpse.config.quoting import as_value
from glimpse.config.replacing import LOADER
from glimpse.config.schema import LISTED, LISTS
from glimpse.errors import UserError

_ORIGINAL_PLACE = defaults_list.update_package_header
_ORIGINAL_LIST = LOADER.create_defaults_list
_ORIGINAL_OPTIONS = GroupDefault.get_options


def _place(repo: Any, node: InputDefault) -> None:
    """Set where a file's content goes: as Hydra does, or for a file of a list under its name."""
    _ORIGINAL_PLACE(repo, node)
    if node.is_self() or node.package or node.get_package_header() or node.parent_base_dir:
        return
    path = node.get_config_path()
    # augment also takes a single file, whose keys are augment.alpha and the like
    groups = LISTED if isinstance(node, ConfigDefault) else LISTS
    if path.rpartition("/")[0] not in groups:
        return
    loaded = repo.load_config(config_path=path)
    if loaded is not None and not _names_its_parts(loaded.config):
        node.set_package_header(path.replace("/", "."))


def _names_its_parts(content: Any) -> bool:
    """Whether every value at the top is a mapping; also true for an empty file."""
    return isinstance(content, DictConfig) and all(
        OmegaConf.is_dict(content._get_node(key)) for key in content
    )


def _create_defaults_list(*args: Any, **kwargs: Any) -> Any:
    """Compose the list of defaults, and enter lists of choices into the known choices."""
    found = _ORIGINAL_LIST(*args, **kwargs)
    listed: dict[str, list[str]] = {}
    for item in found.defaults:
        group, _, name = (item.config_path or "").rpartition("/")
        of_the_root = item.parent is not None and "/" not in item.parent
        if group in LISTED and item.override_key is None and of_the_root:
            listed.setdefault(group, []).append(name)
    for group, names in listed.items():
        found.overrides.known_choices.setdefault(group, f"[{','.join(names)}]")
    return found


def _get_options(self: GroupDefault) -> list[str]:
    """The names in a list of choices.

    Raises:
        UserError: it contains something else, such as null.
    """
    found = _ORIGINAL_OPTIONS(self)
    names = [name for name in found if isinstance(name, str)]
    if names != found:
        remedy = f"{self.group}=[{','.join(names)}]{'' if names else ' for none'}"
        raise UserError(f"{self.group}={as_value(found)}: expected names: type {remedy}")
    return names


CHANGES = (
    (defaults_list, "update_package_header", _place),
    (LOADER, "create_defaults_list", _create_defaults_list),
    (GroupDefault, "get_options", _get_options),
)
