"""The dotted keys of a configuration, and messages for keys and choices that do not exist."""

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from hydra.conf import HydraConf, JobConf, SweepDir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from glimpse.command import to_type
from glimpse.config.folder import config_folders, files_of, root_name
from glimpse.config.habits import ALWAYS_MEASURED, architecture, choice_for, key_for
from glimpse.config.schema import LISTS, NOT_KNOWN_YET
from glimpse.errors import UserError
from glimpse.records import mapping

DOTTED = re.compile(r"\w+(\.\w+)+")


def leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, plain value) of a configuration. Lists count as values.

    Missing values and interpolations are yielded as `NOT_KNOWN_YET`.
    """
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    return leaves_of(content)


def leaves_of(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The same for plain data, whose keys are below `prefix`."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves_of(value, f"{prefix}{key}.")
        elif isinstance(value, str) and (value == "???" or "${" in value):
            yield f"{prefix}{key}", NOT_KNOWN_YET
        else:
            yield f"{prefix}{key}", value


def dotted_keys(content: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the keys that contain a dot themselves, with the key above, and their values.

    Deeper mappings are arguments of targets, such as tags, whose keys are not ours.
    """
    for key, value in content.items():
        if DOTTED.fullmatch(str(key)):
            yield str(key), value
        elif isinstance(value, dict):
            yield from ((f"{key}.{k}", v) for k, v in value.items() if DOTTED.fullmatch(str(k)))


def unknown_key(key: str, known: Iterable[str], words: Sequence[str] | None = None) -> str:
    """An error message for an unknown key: which choices have it, or the most similar known key.

    Args:
        key: The key.
        known: The keys of the configuration.
        words: The command line, or the overrides; None: the command line of this process.
    """
    known = list(known)
    words = sys.argv[1:] if words is None else words
    folders = config_folders(words)
    group, rest = _group_of(key)
    if meant := key_for(key, known):
        return f"{key} is not a key of this configuration: {meant}"
    file = _own_file(group, words, folders)
    if file is not None and rest:
        near = difflib.get_close_matches(rest, _below(group, known), n=1, cutoff=0.7)
        hint = f"; or did you mean {group}.{near[0]}?" if near else ""
        return f"{key}: {file.stem} has no key {rest}: add {rest}: <value> to {file}{hint}"
    owners = _owners(key, folders)
    part = f"{group}.{rest.partition('.')[0]}."  # callbacks.ema., which may be there already
    if owners and not (group in LISTS and any(name.startswith(part) for name in known)):
        noun = NOUNS.get(group, group.rpartition("/")[2])
        choice = f"[{owners[0]}]" if group in LISTS else owners[0]
        is_one = len(owners) == 1
        return (
            f"{key} is a key of {', '.join(owners)}, {'which is not' if is_one else 'none of which is'} the "
            f"{noun} here: type {group}={choice} too{'' if is_one else ', for example'}"
        )
    if group in LISTS and any(name.startswith(f"{key}.") for name in known):
        return f"{key} has no value of its own: type {key}=null to turn it off"
    near = _nearest(key, known)
    part = "hydra" if group.startswith("hydra/") else "job"
    listing = f"type {to_type('--cfg', part)} to list the keys"
    hint = f"did you mean {near[0]}?" if near else listing
    return f"{key} is not a key of this configuration: {hint}"


def _nearest(key: str, known: Iterable[str]) -> list[str]:
    """The most similar known key, which does the same kind of thing; empty if there is none."""
    known = [
        name
        for name in known
        if name.startswith("hydra") == key.startswith("hydra")
        and ("target" in key or not name.endswith("_target_"))
    ]
    folded = key.lower()
    swapped = [name for name in known if sorted(name) == sorted(folded)]  # modle is model, not mode
    near = swapped or difflib.get_close_matches(folded, known, n=1, cutoff=0.6)
    last = folded.rpartition(".")[2]
    return near or [name for name in known if name.rpartition(".")[2] == last][:1]  # another group


def removed_key(key: str) -> str:
    """An error message for a key that the command line has removed."""
    return f"{key} was removed from the configuration: do not type ~{key}"


def fraction_of_own(key: str, whole: int) -> str:
    """What to add to a message that refuses a fraction because a key's default is a whole number.

    In the user's own file, the default may have been meant as a number of any kind.
    """
    words = sys.argv[1:]
    group, rest = _group_of(key)
    file = _own_file(group, words, config_folders(words))
    if file is None:
        return ""
    return f"; if it may have a fraction, write {rest.rpartition('.')[2]}: {float(whole)} in {file}"


def _below(group: str, known: Iterable[str]) -> list[str]:
    return [key.removeprefix(f"{group}.") for key in known if key.startswith(f"{group}.")]


def _own_file(group: str, words: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """The user's own file that is chosen for a group; None if glimpse's is, or it takes a list.

    The choice is that of the command line, or else of the user's root configuration.
    """
    if group in LISTS:
        return None
    chosen = [word.partition("=")[2] for word in words if word.startswith(f"{group}=")]
    own = list(reversed(folders[1:]))
    for folder in own if not chosen else ():
        file = folder / f"{root_name(words)}.yaml"
        for entry in (content_of(file) or {}).get("defaults", ()):
            named = mapping(entry)
            chosen += [str(named[key]) for key in (group, f"override {group}") if key in named]
    files = [folder / group / f"{chosen[-1]}.yaml" for folder in own] if chosen else []
    return next((file for file in files if os.path.isfile(file)), None)


def content_of(file: Path) -> dict[str, Any] | None:
    """The content of a YAML file; None if it is missing or not a mapping, which Hydra reports."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if content is None:  # the file has comments only
        return {}
    return content if isinstance(content, dict) else None


def check_hydra_keys(hydra: DictConfig) -> None:
    """Reject keys that +key has added to Hydra's own part of a configuration.

    Hydra does not report them, and a plugin that receives one fails with an unclear error. Keys
    nested deeper in a plugin's part are not checked.

    Raises:
        UserError: there is such a key. The message names it.
    """
    parts: dict[str, Iterable[str]] = {
        part: [field.name for field in fields(made)]
        for part, made in (("hydra", HydraConf), ("hydra.job", JobConf), ("hydra.sweep", SweepDir))
    }
    parts["hydra"] = [*parts["hydra"], "env"]  # in Hydra's own files, but not in its class
    for name in ("launcher", "sweeper"):
        group, choice = f"hydra/{name}", str(hydra.runtime.choices.get(f"hydra/{name}"))
        if choice in choices_of_plugins(group):
            parts[f"hydra.{name}"] = _node_of(group, choice)
    for part, names in parts.items():
        known = [f"{part}.{name}" for name in names]
        _, _, name = part.partition(".")
        node = hydra[name] if name else hydra
        wrong = next((key for one in node if (key := f"{part}.{one!s}") not in known), None)
        if wrong is not None:
            raise UserError(unknown_key(wrong, known))


def _owners(key: str, folders: Sequence[Path]) -> list[str]:
    """The choices of a group whose files have this key, or only those where it needs a value."""
    group, rest = _group_of(key)
    if group.startswith("hydra/"):
        return [choice for choice in choices_of_plugins(group) if _plugin_has(group, choice, rest)]
    if group in LISTS:
        name = rest.partition(".")[0]
        return [name] if name in files_of(group, folders) else []
    found: dict[str, bool] = {}
    for choice, file in sorted(files_of(group, folders).items()) if rest else ():
        node: Any = content_of(file)
        for part in rest.split("."):
            node = node.get(part, _ABSENT) if isinstance(node, dict) else _ABSENT
        if node is not _ABSENT:
            found[choice] = node == NOT_KNOWN_YET
    return [choice for choice, needs in found.items() if needs] or list(found)


def keys_of_choice(group: str, choice: str, folders: Sequence[Path]) -> dict[str, Any] | None:
    """The keys that the chosen files of a group have, with their values; None without such files.

    Args:
        group: The group.
        choice: The chosen file, or a list such as [flip,cutmix].
        folders: The folders of configuration files; later ones override earlier ones.
    """
    is_list = group in LISTS or choice.startswith("[")
    found: dict[str, Any] = {}
    for name in (part.strip(" '\"") for part in choice.strip("[]").split(",") if part):
        content = _with_included(group, name, folders)
        if content is None:
            return None
        has_parts = all(isinstance(value, dict) for value in content.values())
        found |= {name: content} if is_list and not has_parts else content
    return found


def _with_included(group: str, choice: str, folders: Sequence[Path]) -> dict[str, Any] | None:
    """The content of a choice's file, with the files that it includes."""
    files = [folder / group / f"{choice}.yaml" for folder in folders]
    content = next(
        (found for file in reversed(files) if (found := content_of(file)) is not None), None
    )
    whole: dict[str, Any] = {}
    for name in content.pop("defaults", ()) if content else ():
        if isinstance(name, str) and name != "_self_":
            whole |= _with_included(group, name, folders) or {}
    return None if content is None else whole | content


def is_in(content: Mapping[str, Any], key: str) -> bool:
    """Whether a dotted key is in nested mappings, or below a value that is not a mapping."""
    node: Any = content
    for part in key.split("."):
        if not isinstance(node, Mapping):
            return True
        if part not in node:
            return False
        node = node[part]
    return True


_ABSENT = object()


def _group_of(key: str) -> tuple[str, str]:
    """A key's group and its rest: `hydra/launcher` and `n_jobs` for `hydra.launcher.n_jobs`."""
    group, _, rest = key.partition(".")
    if group == "hydra":
        name, _, rest = rest.partition(".")
        group = f"hydra/{name}"
    return group, rest


def choices_of_plugins(group: str) -> list[str]:
    """The choices of a group such as `hydra/launcher` that Hydra's plugins have registered."""
    if not group.startswith("hydra/"):
        return []
    try:
        listed = ConfigStore.instance().list(group)
    except OSError:  # there is no such group
        return []
    return sorted(name.removesuffix(".yaml") for name in listed if name.endswith(".yaml"))


def _plugin_has(group: str, choice: str, key: str) -> bool:
    """Whether a plugin takes a key. Sweeps reject joblib's plugin, so no key counts as its own."""
    return choice != "joblib" and bool(key) and key.partition(".")[0] in _node_of(group, choice)


def _node_of(group: str, choice: str) -> list[str]:
    """The keys of a plugin that Hydra has registered."""
    return list(map(str, ConfigStore.instance().load(f"{group}/{choice}.yaml").node))


NOTHING = ("none", "null", "false")  # what people type to turn a group off
EXTRAS = {"ray": "ray", "submitit_slurm": "slurm", "submitit_local": "slurm"}  # of launchers

NOUNS = {
    "data": "dataset",
    "augment": "augmentation",
    "callbacks": "callback",
    "metrics": "metric",
    "--class": "class",
}  # the noun for a choice of a group, if it is not the group's name


def in_own_folder(group: str, choice: str) -> str | None:
    """What to type if a choice is a file of the conf/ here, which was not named; None otherwise."""
    here = Path("conf") / group / f"{choice}.yaml"
    if not here.is_file():
        return None
    return f"{group}={choice}: {here} is here: add --config-dir conf (in Python, config_dir='conf')"


def unknown_choice(group: str, choice: str, available: Iterable[str]) -> str:
    """An error message for an unknown choice of a group, with the most similar known choice."""
    available = sorted(available)
    if group == "metrics" and choice.lower() in ALWAYS_MEASURED:
        return f"{group}={choice}: accuracy is always measured, as val/acc: leave it out"
    folded = choice.lower()
    if group in LISTS and folded in NOTHING and "none" not in available:
        return f"{group}={choice}: expected a list of names: type {group}=[] for none"
    meant = "none" if folded in NOTHING and "none" in available else choice_for(group, choice)
    near = [meant] if meant else difflib.get_close_matches(folded, available, n=1, cutoff=0.5)
    if group == "model" and near != [folded] and (name := architecture(choice)):
        return f"{group}={choice}: type model=pretrained model.architecture={name}"
    hint = f" (did you mean {near[0]}?)" if near else ""
    if group == "hydra/launcher" and choice in EXTRAS:
        return f"{group}={choice} is not installed: type pip install 'glimpse[{EXTRAS[choice]}]'"
    if group == "hydra/launcher" and choice in ("joblib", "multiprocessing"):
        return f"{group}={choice}: to run jobs side by side, type hydra.launcher.n_jobs=<number>"
    noun = NOUNS.get(group, group.rpartition("/")[2])  # hydra/sweeper is a sweeper
    return f"{group}={choice}: there is no such {noun}{hint}; choose from {', '.join(available)}"
