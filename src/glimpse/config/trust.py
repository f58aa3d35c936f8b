"""What may be executed, and what a stranger's run folder may say.

Hydra builds whatever `hydra.callbacks`, `hydra.sweeper`, `hydra.launcher` and its logging name, before
any program of ours sees the configuration. `guard_hydra` puts a check between its composition and that
moment: only Hydra's own plugins and the published ones in `PLUGINS` are built. `recorded_overrides`
reads what a run folder recorded as data: values for our own keys, nothing of Hydra's.
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

# Modules whose sweepers and launchers may run.
PLUGINS = (
    "hydra._internal.core_plugins.basic_launcher.",
    "hydra._internal.core_plugins.basic_sweeper.",
    "hydra_plugins.hydra_ax_sweeper.",
    "hydra_plugins.hydra_joblib_launcher.",
    "hydra_plugins.hydra_optuna_sweeper.",
    "hydra_plugins.hydra_ray_launcher.",
    "hydra_plugins.hydra_submitit_launcher.",
)
# key: what its value starts with
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

# What decides where data comes from is typed, never taken from a folder: it downloads and unpacks.
NOT_FROM_A_RECORD = ("data.url", "data.sha256")

RESOLVER = re.compile(r"\$\{[^}]*:")  # ${oc.env:HOME}; ${data_dir} is a value of ours


def guard_hydra() -> None:
    """From here on, every configuration that Hydra composes is checked before Hydra acts on it."""
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
    """Hold everything that Hydra would build to its known plugins.

    Raises:
        UserError: naming the first key that asks for something else.
    """
    for key, value in _entries(config.hydra, "hydra"):
        allowed = _allowed(key, value)
        if allowed is not None and not str(value).startswith(allowed):
            expected = ", ".join(name.removesuffix(".") for name in allowed) or "nothing"
            raise UserError(f"{key}={value!s} is refused: expected {expected}")


def _allowed(key: str, value: Any) -> tuple[str, ...] | None:
    """What a value may start with; None where Hydra builds nothing from it."""
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
    """Every (dotted key, value) below a node, in lists too; an interpolation as it is written.

    Raises:
        UserError: an interpolation stands for more than one value, which could be anything.
    """
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        name = f"{prefix}.{key!s}"
        if OmegaConf.is_missing(node, key):
            continue
        raw = node._get_node(key)
        if raw is not None and raw._is_interpolation():
            with suppress(OmegaConfBaseException):  # some are known only once a job runs
                if isinstance(node[key], Container):
                    raise UserError(
                        f"{name}={raw._value()!s} is refused: type the values themselves"
                    )
            yield name, raw._value()
        elif isinstance(node[key], Container):
            yield from _entries(node[key], name)
        else:
            yield name, node[key]


def recorded_overrides(folder: Path) -> list[str]:
    """The overrides that a run folder recorded, without those that decide where data comes from.

    Raises:
        UserError: the record is missing or damaged, or holds anything but values for our own keys.
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
            raise UserError(f"{record} holds {line}, which is no key of ours: remove the line")
        if RESOLVER.search(line):
            raise UserError(f"{record} holds {line}: a record may hold values only")
        if key != "resume" and key not in NOT_FROM_A_RECORD:
            kept.append(line)
    return kept


def _parsed(line: str, record: Path) -> Override:
    try:
        [override] = OverridesParser.create().parse_overrides([line])
    except (OverrideParseException, ValueError) as error:
        raise UserError(f"{record} holds {line}, which is no override: remove the line") from error
    return override


def own_keys() -> set[str]:
    """Our groups, and the keys at the root of conf/train.yaml."""
    root = yaml.safe_load((config_folder() / "train.yaml").read_text(encoding="utf-8"))
    groups = {path.name for path in config_folder().iterdir() if path.is_dir()}
    return (groups | set(root)) - {"defaults", "hydra"}
