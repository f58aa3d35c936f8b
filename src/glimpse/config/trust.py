"""Restrict what a configuration may execute and what a stranger's run folder may set.

Hydra builds the objects named in `hydra.callbacks`, `hydra.sweeper`, `hydra.launcher` and its
logging before our code sees the configuration. `guard_hydra` adds a check right after Hydra's
composition. It allows only Hydra's own plugins and the published ones in `PLUGINS`.
`recorded_overrides` reads a run folder's record as data and accepts only values for our own keys,
not for Hydra's.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from glimpse.config.folder import config_folder
from glimpse.errors import UserError
from glimpse.files import is_own_file

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
# key: allowed prefixes of its value
TARGETS: Mapping[str, tuple[str, ...]] = {
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

RESOLVER = re.compile(r"\$\{[^}]*:")  # matches ${oc.env:HOME}, but not our own ${data_dir}


def guard_hydra() -> None:
    """Make Hydra check every configuration that it composes from now on, before it acts on it."""
    compose = ConfigLoaderImpl.load_configuration
    if getattr(compose, "is_guarded", False):
        return

    def load_configuration(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
        config = compose(self, *args, **kwargs)
        check_hydra(config)
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
        return CALLBACKS if key.startswith("hydra.callbacks.") else TARGETS.get(key, ())
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


def recorded_overrides(folder: Path) -> list[str]:
    """The overrides recorded in a run folder, without those that determine the source of data.

    Raises:
        UserError: the record is missing or damaged, or contains anything but values for our keys.
    """
    record = folder / ".hydra" / "overrides.yaml"
    if not is_own_file(folder, record):
        raise UserError(f"resume={folder}: not a run folder (it has no .hydra/overrides.yaml)")
    try:
        listed = yaml.safe_load(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{record} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(listed, list) or not all(isinstance(line, str) for line in listed):
        raise UserError(f"{record}: expected a list of overrides")
    own = own_keys()
    kept = []
    for line in listed:
        override = _parsed(line, record)
        key = override.key_or_group
        if override.package is not None or key.split(".")[0] not in own:
            raise UserError(
                f"{record} contains {line}, which is not one of our keys: remove the line"
            )
        if RESOLVER.search(line):
            raise UserError(
                f"{record} contains {line}, but only plain values are allowed: remove it"
            )
        if key != "resume" and key not in NOT_FROM_A_RECORD:
            kept.append(line)
    return kept


def _parsed(line: str, record: Path) -> Override:
    try:
        [override] = OverridesParser.create().parse_overrides([line])
    except (OverrideParseException, ValueError) as error:
        raise UserError(
            f"{record} contains {line}, which is not an override: remove the line"
        ) from error
    return override


def own_keys() -> set[str]:
    """Our groups, and the top-level keys of conf/train.yaml."""
    root = yaml.safe_load((config_folder() / "train.yaml").read_text(encoding="utf-8"))
    groups = {path.name for path in config_folder().iterdir() if path.is_dir()}
    return (groups | set(root)) - {"defaults", "hydra"}
