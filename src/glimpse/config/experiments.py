"""Let an experiment replace the defaults of a project; only the command line comes before it.

A project's own root configuration (`--config-name`) includes ours, and with it the experiment. Hydra
would prefer the choices and values of the root.

An experiment also adapts to another choice: `experiment=cifar10_fast optimizer=adamw` trains with
AdamW. The file of an experiment sets keys of the choices that it was written for, such as
`optimizer.matrix_lr`. If the command line replaces such a choice, keys that the other choice lacks
are left out, and a line reports them. Keys that it has, such as `optimizer.lr`, keep the
experiment's value. If an augmentation becomes part of a list, its keys move to its name.

The usual slips in an experiment's file, such as `model: linear` for a choice, are rejected when it is
read, with the line to write. Hydra would report them as something else, or not at all.

`CHANGES` replaces three functions inside Hydra 1.3 while compose.py composes.
"""

import sys
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf

from glimpse.config.folder import config_folder
from glimpse.config.quoting import as_value
from glimpse.config.schema import GROUPS, LISTS
from glimpse.errors import UserError, first_line

EXPERIMENTS = "experiment/"

Choice = str | tuple[str, ...]  # a file of a group, or a list of them

_ORIGINAL = ConfigLoaderImpl._compose_config_from_defaults_list
_ORIGINAL_ADD = Overrides.add_override
_ORIGINAL_LOAD = ConfigRepository.load_config
_reported: set[str] = set()  # lines that this process has printed


def _load(self: ConfigRepository, config_path: str) -> ConfigResult | None:
    """Read a file, and reject the usual slips.

    Raises:
        UserError: there is one. The message names the file and the line to write.
    """
    try:
        found = _ORIGINAL_LOAD(self, config_path)
    except ValueError as error:
        if type(error) is not ValueError:  # such as of bytes that are not UTF-8
            raise
        raise UserError(
            f"{config_path}.yaml: {first_line(error)}: write, below defaults:, lines such as - override "
            "/model: linear or - override /callbacks: [ema]"
        ) from error
    if found is not None and _is_experiment(config_path):
        _require_no_slip(f"{config_path}.yaml", found)
    return found


def _require_no_slip(file: str, found: ConfigResult) -> None:
    """Reject an experiment that would not set what it states."""
    chosen = [default for default in found.defaults_list or () if isinstance(default, GroupDefault)]
    is_set_elsewhere = bool(found.config) or any(default.is_override() for default in chosen)
    if found.header.get("package") is None and is_set_elsewhere:
        raise UserError(
            f"{file}: its keys are not keys of this configuration: write # @package _global_ as its first "
            "line, so that it sets the keys of the run"
        )
    for default in chosen:
        written = str(default.group)
        group = written.split()[-1].lstrip("/")  # of "/override model" too
        is_added = group in LISTS and written.startswith("/")
        is_right = is_added or (default.is_override() and written.startswith("/"))
        if group in (*GROUPS, *LISTS) and not is_right:
            before = "override " if default.is_override() else ""
            value = as_value(default.value)
            raise UserError(
                f"{file}, in defaults: {before}{written}: {value} chooses nothing: write override "
                f"/{group}: {value}, with override and the slash"
            )
    assert isinstance(found.config, DictConfig)
    for key, content in found.config.items_ex(resolve=False):
        group = str(key)
        if group in (*GROUPS, *LISTS) and isinstance(content, str | ListConfig):
            is_name = isinstance(content, str)
            typed = as_value(content if is_name else list(content))
            choice = f"[{typed}]" if is_name and group in LISTS else typed
            raise UserError(
                f"{file}: {group}: {typed} chooses nothing: write, below defaults: at the top of the "
                f"file, - override /{group}: {choice}"
            )


def _add_override(self: Overrides, parent_config_path: str, default: GroupDefault) -> None:
    """Enter a file's choice: Hydra keeps the first, but an experiment's replaces the root's."""
    key = default.get_override_key()
    before = self.override_metadata.get(key)
    is_of_root = (
        before
        and not before.external_override
        and not _is_experiment(before.containing_config_path)
    )
    if is_of_root and _is_experiment(parent_config_path):
        del self.override_choices[key], self.override_metadata[key]
    _ORIGINAL_ADD(self, parent_config_path, default)


def _is_experiment(path: str | None) -> bool:
    return (path or "").startswith(EXPERIMENTS)


def _compose(self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: Any) -> DictConfig:
    """Compose all files, the experiment's last, without its keys for choices that were replaced."""
    defaults = sorted(
        defaults, key=lambda one: _is_experiment(one.config_path) or _is_experiment(one.parent)
    )
    paths = dict.fromkeys(default.config_path or "" for default in defaults)
    files = [path for path in paths if _is_experiment(path)]
    expected = _choices_in(files, repo)
    chosen = {group: _chosen(group, defaults) for group in expected}
    if chosen == expected:
        return _ORIGINAL(self, defaults, repo)
    others = [d for d in defaults if d.config_path not in files]
    # First, because Hydra merges into the files that it has read.
    without = OmegaConf.to_container(_ORIGINAL(self, others, repo), resolve=False)
    config = _ORIGINAL(self, defaults, repo)
    assert isinstance(without, dict)
    for group, choice in expected.items():
        if chosen[group] != choice and group in config:
            _adapt(config, group, without.get(group) or {}, choice, chosen[group])
    return config


def _choices_in(files: Sequence[str], repo: Any) -> dict[str, Choice]:
    """The choices that the files of experiments were written for, by group."""
    found: dict[str, Choice] = {}
    for file in files:
        for default in repo.load_config(config_path=file).defaults_list or ():
            if isinstance(default, GroupDefault) and default.is_override():
                value: Any = default.value or []
                group = str(default.group).lstrip("/")
                found[group] = value if isinstance(value, str) else tuple(value)
    return found


def _chosen(group: str, defaults: Sequence[ResultDefault]) -> Choice:
    """The choice that is composed, without the files that its own files include."""
    names = []
    for default in defaults:
        of, _, name = (default.config_path or "").rpartition("/")
        if of == group and default.parent and "/" not in default.parent:
            if group not in LISTS and not (default.package or "").startswith(f"{group}."):
                return name
            names.append(name)
    return tuple(names)


def _adapt(
    config: DictConfig, group: str, known: dict[Any, Any], before: Choice, chosen: Choice
) -> None:
    """Remove the keys of a group that the chosen files do not have, and report them.

    Args:
        config: The whole configuration, which is changed.
        group: The group.
        known: The group as it is composed without the experiment.
        before: The choice that the experiment was written for.
        chosen: The choice that is composed.
    """
    found = OmegaConf.to_container(config[group], resolve=False) if config[group] else None
    if not isinstance(found, dict):
        return
    found = _moved(found, known, before, chosen)
    dropped = _drop_unknown(found, known, f"{group}.")
    if group in LISTS:  # null turns them off, and callbacks.ema=null may be typed too
        names = [key.partition(".")[2] for key in dropped]
        ours = [name for name in names if (config_folder() / group / f"{name}.yaml").exists()]
        found |= dict.fromkeys(ours)
    config[group] = found
    if dropped:
        _report(group, chosen, dropped)


def _moved(
    found: dict[Any, Any], known: dict[Any, Any], before: Choice, chosen: Choice
) -> dict[Any, Any]:
    """Move the keys of an augmentation that is now in a list, or no longer in one."""
    if isinstance(before, str) and not isinstance(chosen, str) and before in chosen:
        part = known[before]
        own = {key: found[key] for key in found if key not in known and key in part}
        rest = {key: value for key, value in found.items() if key not in own}
        return rest | {before: found[before] | own}
    if isinstance(chosen, str) and not isinstance(before, str) and chosen in before:
        part = found.get(chosen) or {}
        return found | {key: value for key, value in part.items() if key in known}
    return found


def _drop_unknown(found: dict[Any, Any], known: dict[Any, Any], prefix: str) -> list[str]:
    """Remove the keys that are not known, at any depth. Returns their dotted names."""
    dropped = []
    for key, value in list(found.items()):
        if key not in known:
            del found[key]
            dropped.append(f"{prefix}{key}")
        elif isinstance(value, dict) and isinstance(known[key], dict) and known[key]:
            dropped += _drop_unknown(value, known[key], f"{prefix}{key}.")
    return dropped


def _report(group: str, chosen: Choice, dropped: Sequence[str]) -> None:
    choice = chosen if isinstance(chosen, str) else f"[{','.join(chosen)}]"
    line = (
        f"the experiment's settings that {group}={choice} does not have are left out: "
        f"{', '.join(dropped)}"
    )
    if line not in _reported:
        _reported.add(line)
        print(line, file=sys.stderr)


CHANGES = (
    (Overrides, "add_override", _add_override),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list", _compose),
    (ConfigRepository, "load_config", _load),
)
