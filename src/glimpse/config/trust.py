"""Restrict what a configuration may execute and what a stranger's run folder may set.

Hydra builds the objects named in `hydra.callbacks`, `hydra.sweeper`, `hydra.launcher` and its
logging before our code sees the configuration. `guard_hydra` adds a check right after Hydra's
composition. It allows only Hydra's own plugins and the published ones in `PLUGINS`.
`recorded_overrides` reads a run folder's record as data and accepts only values for our own keys,
not for Hydra's.

The user's own command line and configuration folders may name targets of any package. A run folder
or a checkpoint may name only targets of `RECORD_PACKAGES`, or of a package that the user has listed
in the key `packages` or with `--trust`.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import Override
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glimpse.config.folder import (
    ROOT,
    config_folder,
    config_folders,
    groups_of,
    root_name,
    typed_list,
)
from glimpse.config.keys import check_hydra_keys, content_of, leaves
from glimpse.config.quoting import parsed
from glimpse.config.schema import LIBRARIES
from glimpse.errors import UserError
from glimpse.records import ENVIRONMENT, UnreadableError, listed, read_yaml
from glimpse.runs.settings import environment_of, typed_at_resume

# Modules that sweepers and launchers may come from.
PLUGINS = (
    "hydra._internal.core_plugins.basic_launcher.",
    "hydra._internal.core_plugins.basic_sweeper.",
    "hydra_plugins.glimpse_search.",
    "hydra_plugins.glimpse_sweeps.",
    "hydra_plugins.hydra_ax_sweeper.",
    "hydra_plugins.hydra_joblib_launcher.",
    "hydra_plugins.hydra_optuna_sweeper.",
    "hydra_plugins.hydra_ray_launcher.",
    "hydra_plugins.hydra_submitit_launcher.",
)
# key of a plugin: allowed prefixes of its value
PLUGIN_KEYS: Mapping[str, tuple[str, ...]] = {
    "hydra.sweeper._target_": PLUGINS,
    "hydra.launcher._target_": PLUGINS,
    "hydra.sweeper.sampler._target_": ("optuna.samplers.",),
}
CALLBACKS = (
    "hydra.experimental.callbacks.LogJobReturnCallback",
    "hydra.experimental.callbacks.PickleJobInfoCallback",
)
LOGGING = ("hydra.job_logging.", "hydra.hydra_logging.")  # dictConfig builds "class" and "()"
HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler")
FORMATTERS = ("colorlog.ColoredFormatter",)
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

# These keys download and unpack files, so they must be typed and are never read from a folder.
NOT_FROM_A_RECORD = ("data.url", "data.sha256")

# Packages whose targets a run folder or a checkpoint may name.
RECORD_PACKAGES = ("glimpse", *LIBRARIES)

# Groups whose parts write or send files, and their arguments that name the destination.
WRITERS = ("callbacks", "logger", "trainer")
PLACE_KEYS = (
    "dirpath", "filename", "save_dir", "root_dir", "default_root_dir", "dir", "log_dir", "tracking_uri",
    "artifact_location", "host", "base_url", "entity",
)  # fmt: skip
# A path out of a folder, or an address:
OUTSIDE = re.compile(r"^[~/\\]|^[A-Za-z]:[\\/]|://|(^|[\\/])\.\.([\\/]|$)")

LEADS_AWAY = re.compile(r"(^|[\\/])\.\.([\\/]|$)|^[\\/]|\$")  # a path out of conf/, or ${…}
REFERENCE = re.compile(r"\$\{[\w.]+\}")  # matches our own ${data_dir}, but not ${oc.env:HOME}


def guard_hydra() -> None:
    """Make Hydra check every configuration that it composes from now on, before it acts on it."""
    compose = ConfigLoaderImpl.load_configuration
    if getattr(compose, "is_guarded", False):
        return

    def load_configuration(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
        config = compose(self, *args, **kwargs)
        check_hydra(config)
        check_hydra_keys(config.hydra)
        return config

    load_configuration.is_guarded = True  # type: ignore[attr-defined]
    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]


def check_hydra(config: DictConfig) -> None:
    """Require everything that Hydra would build to be a known plugin.

    Raises:
        UserError: it is something else. The message names the first such key.
    """
    for key, value in _entries(config.hydra, "hydra"):
        allowed = _allowed(key, value)
        if allowed is not None and not str(value).startswith(allowed):
            expected = ", ".join(name.removesuffix(".") for name in allowed) or "nothing"
            raise UserError(f"{key}={value!s} is not allowed: expected {expected}")


def _allowed(key: str, value: Any) -> tuple[str, ...] | None:
    """The allowed prefixes of a value; None if Hydra builds nothing from it."""
    last = key.rpartition(".")[2]
    if last == "_target_":
        return CALLBACKS if key.startswith("hydra.callbacks.") else PLUGIN_KEYS.get(key, ())
    if not key.startswith(LOGGING):
        return None
    if last == "()":
        return FORMATTERS
    if last == "class":
        return HANDLERS
    if last == "stream" or "://" in str(value):
        return STREAMS
    return None


def _entries(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, value) below a node, including lists; interpolations unresolved.

    Raises:
        UserError: an interpolation refers to a mapping or list, which could contain anything.
    """
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        name = f"{prefix}.{key!s}"
        if OmegaConf.is_missing(node, key):
            continue
        raw = node._get_node(key)
        if raw is not None and raw._is_interpolation():
            with suppress(OmegaConfBaseException):  # some can be resolved only when a job runs
                if isinstance(node[key], Container):
                    raise UserError(
                        f"{name}={raw._value()!s} is not allowed: type the values themselves"
                    )
            yield name, raw._value()
        elif isinstance(node[key], Container):
            yield from _entries(node[key], name)
        else:
            yield name, node[key]


def recorded_overrides(
    folder: Path, packages: Sequence[str] = (), typed: Sequence[str] = ()
) -> list[str]:
    """The overrides recorded in a run folder, without those that determine the source of data.

    Args:
        folder: The run folder.
        packages: Those that the user has listed, whose classes the record may name.
        typed: Overrides that replace the record's.

    Raises:
        UserError: the record is missing or damaged, or contains more than values for our keys.
    """
    record = folder / ".hydra" / "overrides.yaml"
    if not os.path.lexists(record):
        raise UserError(f"resume={folder}: not a run folder (it has no .hydra/overrides.yaml)")
    try:
        lines = read_yaml(folder, ".hydra/overrides.yaml")
    except UnreadableError as error:
        raise UserError(
            f"{error}; write the overrides of the first command into it, such as - model=mlp, one per line"
        ) from error
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise UserError(f"{record}: expected a list of overrides")
    return _kept(lines, record, folder, packages, typed)


def resumed_overrides(folder: Path, packages: Sequence[str], typed: Sequence[str]) -> list[str]:
    """The overrides that were typed when the run was resumed, held to the same rules.

    The arguments and errors are those of `recorded_overrides`.
    """
    record = folder / ENVIRONMENT
    lines = typed_at_resume(environment_of(folder))
    return _kept(lines, record, folder, packages, typed)


def _kept(
    lines: Iterable[str], record: Path, folder: Path, packages: Sequence[str], typed: Sequence[str]
) -> list[str]:
    """The lines of a record that are not replaced by what was typed, after their check."""
    own = own_keys()
    replaced = {line.partition("=")[0].lstrip("+~") for line in typed}
    kept = []
    for line in lines:
        override = parsed(line)
        if override is None:
            raise UserError(f"{record} contains {line}, which is not an override: remove the line")
        key = override.key_or_group
        if key in replaced:
            continue
        if override.package is not None or key.split(".")[0] not in own:
            raise UserError(
                f"{record} contains {line}, which sets no key of glimpse: remove the line"
            )
        if "${" in REFERENCE.sub("", line):  # such as ${oc.env:HOME}, or one inside another
            raise UserError(
                f"{record} contains {line}, but only plain values are allowed: remove it"
            )
        _check_recorded(override, line, record, folder, packages)
        if key not in ("resume", "packages", *NOT_FROM_A_RECORD):
            kept.append(line)
    return kept


def _check_recorded(
    override: Override, line: str, record: Path, folder: Path, packages: Sequence[str]
) -> None:
    """Reject a recorded override that names an untrusted package, or a file outside its folder."""
    key = override.key_or_group
    value = None if override.is_sweep_override() else override.value()
    values = value if isinstance(value, list) else [value]
    is_choice = key in groups_of([config_folder()])
    if is_choice and any(LEADS_AWAY.search(str(name)) for name in values):
        raise UserError(
            f"{record} contains {line}, but a choice is a name, not a path: remove the line"
        )
    for target in _targets({key.rpartition(".")[2]: value}):
        if not is_from(target, (*RECORD_PACKAGES, *packages)):
            raise UserError(untrusted(f"{record} contains {line}", target, "packages=[{}]"))
    if key.partition(".")[0] in WRITERS and _leads_out(key, value):
        raise UserError(
            f"{record} contains {line}, which names a place outside the run folder: remove the line, or, if "
            f"it is yours, type it again after resume={folder}"
        )


def _leads_out(key: str, value: Any) -> bool:
    """Whether a value, or one inside it, says where a logger or a callback writes or sends."""
    if isinstance(value, Mapping):
        return any(_leads_out(str(inner), one) for inner, one in value.items())
    if isinstance(value, list):
        return any(_leads_out(key, one) for one in value)
    is_place = key.rpartition(".")[2] in PLACE_KEYS and value is not None
    return is_place or (isinstance(value, str) and OUTSIDE.search(value) is not None)


def require_no_place_outside(config: DictConfig, record: Path, typed: Iterable[str]) -> None:
    """Reject a recorded configuration whose callbacks or trainer would write to another place.

    Keys that the user has typed are trusted. `record` is the file that contains the configuration.

    Raises:
        UserError: one would. The message names the key.
    """
    for key, value in leaves(config):
        if key.partition(".")[0] not in WRITERS or key in typed:
            continue
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and OUTSIDE.search(text) for text in texts):
            raise UserError(
                f"{record} contains {key}={value}, a place outside the run folder: if it is yours, type it again"
            )


def _targets(value: Any) -> list[str]:
    """Every `_target_` in a value of mappings and lists."""
    if isinstance(value, Mapping):
        inner = [target for one in value.values() for target in _targets(one)]
        return [str(v) for k, v in value.items() if str(k) == "_target_"] + inner
    if isinstance(value, list):
        return [target for one in value for target in _targets(one)]
    return []


def check_record(config: Mapping[str, Any], place: Path, packages: Sequence[str]) -> None:
    """Require every `_target_` in a checkpoint's configuration to come from a trusted package.

    Those are `RECORD_PACKAGES` and the `packages` that the user has listed. `place` is the checkpoint.

    Raises:
        UserError: one does not. The message names it and what to type.
    """
    for target in _targets(dict(config)):
        if not is_from(target, (*RECORD_PACKAGES, *packages)):
            raise UntrustedError(str(place), target)


class UntrustedError(UserError):
    """A checkpoint names a target of a package that is not trusted."""

    def __init__(self, place: str, target: str) -> None:
        super().__init__(untrusted(place, target, "--trust {0}, or export GLIMPSE_TRUST={0}"))
        self.place = place
        self.target = target


def untrusted(place: str, target: str, remedy: str) -> str:
    """An error message for a target from a package that is not trusted."""
    package = target.partition(".")[0]
    return (
        f"{place} needs {target}, and a run folder may name only targets of "
        f"{', '.join(RECORD_PACKAGES)}: if you trust the package {package}, type "
        f"{remedy.format(package)}"
    )


def is_from(target: str, packages: Iterable[str]) -> bool:
    """Whether a dotted name is one of these packages, or inside one of them."""
    return any(target == name or target.startswith(f"{name}.") for name in packages)


def listed_packages(arguments: Sequence[str]) -> list[str]:
    """The packages in the key `packages` of the command line, or else of the root configuration."""
    typed = [word.partition("=")[2] for word in arguments if word.startswith("packages=")]
    if typed:
        return list(map(str, typed_list(typed[-1])))
    for folder in reversed(config_folders(arguments)):
        root = content_of(folder / f"{root_name(arguments)}.yaml") or {}
        if root.get("packages") is not None:
            return list(map(str, listed(root["packages"])))
    return []


def own_keys() -> set[str]:
    """Our groups, and the top-level keys of conf/train.yaml and of a project's own root."""
    arguments = sys.argv[1:]
    roots = {f"{name}.yaml" for name in (ROOT, root_name(arguments))}
    files = [folder / name for folder in config_folders(arguments) for name in roots]
    keys = {str(key) for file in files for key in content_of(file) or {}}
    return (groups_of([config_folder()]) | keys) - {"defaults", "hydra"}
