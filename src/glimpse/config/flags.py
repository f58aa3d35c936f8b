"""The flags of a command line, which precede its overrides: Hydra's, and a project's defaults."""

from collections.abc import Sequence
from pathlib import Path

from glimpse.config.folder import CONFIG_DIR, CONFIG_NAME, values_of
from glimpse.config.habits import setting_for
from glimpse.config.own_files import require_own_folder
from glimpse.config.places import for_a_path
from glimpse.errors import UserError

# Hydra's flags that take a value, those that take none, and INFO, whose value is optional.
FLAGS_WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir",
    "-cd",
)  # fmt: skip
OTHER_FLAGS = (
    "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m",
    "--shell-completion", "-sc",
)  # fmt: skip
CFG, CFG_VALUES = ("--cfg", "-c"), ("job", "hydra", "all")
INFO = ("--info", "-i")
INFO_VALUES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate flags, with their values, from overrides, which argparse expects after all flags.

    Raises:
        UserError: there is no such flag, or it would execute the contents of a pickle.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("--experimental-rerun"):
            raise UserError(
                f"{word} is not allowed, because it executes a pickle: type resume=<run folder>"
            )
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in (*FLAGS_WITH_VALUE, *OTHER_FLAGS, *INFO):
            key = name.lstrip("-").replace("-", "_")
            key = setting_for(key) or key
            value = value or (rest[0] if rest and not equals else "<value>")
            setting = key if "=" in key else for_a_path(key, value) or f"{key}={value}"
            raise UserError(
                f"{name}: there is no such flag; settings have no dashes: type {setting}"
            )
        flags.append(word)
        if word in FLAGS_WITH_VALUE:
            value = rest.pop(0) if rest else ""
            flags.append(value)
        if name in FLAGS_WITH_VALUE:
            _require_value(name, value)
        elif word in INFO:
            flags.append(rest.pop(0) if rest and rest[0] in INFO_VALUES else "all")
    return flags, overrides


def _require_value(flag: str, value: str) -> None:
    """Require the value of a flag, which Hydra would otherwise take from the next word.

    Raises:
        UserError: there is no value, or it is not one of the flag's choices.
    """
    if flag in CFG and value not in CFG_VALUES:
        typed = f"{flag} {value}".strip()
        raise UserError(f"{typed}: expected one of {', '.join(CFG_VALUES)}: type {flag} job")
    if not value or value.startswith("-"):
        raise UserError(
            f"{flag}: expected a value after it, found {value or 'nothing'}: type {flag} <value>"
        )


def is_sweep(flags: Sequence[str]) -> bool:
    """Whether the flags ask for a sweep."""
    return bool({"-m", "--multirun"} & set(flags))


def with_default_flags(
    flags: list[str], config_dir: Path | None, config_name: str | None
) -> list[str]:
    """Add a project's own configuration folder and root, unless others were typed.

    Raises:
        UserError: the folder that was typed does not exist or cannot be read.
    """
    for place in values_of(flags, CONFIG_DIR):
        require_own_folder(Path(place))
    names = {flag.partition("=")[0] for flag in flags}
    if config_dir is not None and not names & set(CONFIG_DIR):
        flags = [CONFIG_DIR[0], str(config_dir), *flags]
    if config_name is not None and not names & set(CONFIG_NAME):
        flags = [CONFIG_NAME[0], config_name, *flags]
    return flags
