"""The flags of a command line, which precede its overrides: Hydra's, and a project's defaults."""

import sys
from collections.abc import Sequence
from pathlib import Path

from glimpse.command import in_shell, to_type
from glimpse.config.folder import (
    CONFIG_DIR,
    CONFIG_NAME,
    ROOT,
    config_folder,
    config_folders,
    groups_of,
    values_of,
)
from glimpse.config.habits import setting_for
from glimpse.config.keys import content_of
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
CONFIG_PATH = ("--config-path", "-cp")
MULTIRUN, INFO = ("--multirun", "-m"), ("--info", "-i")
COMPLETION = ("--shell-completion", "-sc")
HELP = ("--help", "-h", "--hydra-help", "--version")  # answered first, whatever else is typed
USES = {  # Hydra does one thing at a time
    "-m runs a sweep": MULTIRUN,
    "--cfg prints one configuration": CFG,
    "--info describes one configuration": INFO,
    "-sc prints a completion": COMPLETION,
    "--run runs once": ("--run", "-r"),
}
# How settings begin that only a sweep uses, and names of folders that it or a single run ignores.
OF_SWEEPS = ("sweep.", "hydra/sweeper=", "hydra.sweeper.", "hydra/launcher=", "hydra.launcher.")
IGNORED = {True: ("hydra.run.dir=", "hydra.sweep.subdir="), False: ("name=", "hydra.sweep.")}
OF_CFG = ("--resolve", "--package", "-p")
INFO_VALUES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate flags, with their values, from overrides, which argparse expects after all flags.

    Raises:
        UserError: there is no such flag, it would execute the contents of a pickle, or it does not
            go with the others.
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
            value = value or (rest[0] if rest and not equals else "<value>")
            raise UserError(f"{name}: there is no such flag{_remedy(name, value, arguments)}")
        flags.append(word)
        if word in FLAGS_WITH_VALUE:
            value = rest.pop(0) if rest else ""
            flags.append(value)
        if name in FLAGS_WITH_VALUE:
            _require_value(name, value)
        elif word in INFO:
            flags.append(rest.pop(0) if rest and rest[0] in INFO_VALUES else "all")
    _require_one_use(flags, overrides)
    if "--hydra-help" in flags:  # it describes Hydra, whose own configuration lacks our keys
        return ["--hydra-help"], []
    return flags, overrides


def _remedy(flag: str, value: str, arguments: Sequence[str]) -> str:
    """What to type in place of a flag that does not exist: a setting, if there is one of its name."""
    key = flag.lstrip("-").replace("-", "_")
    if not key:
        return ": leave it out"
    key = setting_for(key) or key
    known = {
        *groups_of(config_folders(arguments)),
        *(content_of(config_folder() / f"{ROOT}.yaml") or ()),
    }
    if key.partition("=")[0].partition(".")[0] not in known:
        return f": type {to_type('--help')} for the flags and keys"
    setting = key if "=" in key else for_a_path(key, value) or f"{key}={value}"
    return f"; settings have no dashes: type {setting}"


def _require_one_use(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Require flags that go together.

    Raises:
        UserError: they do not.
    """
    typed = [flag.partition("=")[0] for flag in flags]
    if set(HELP) & set(typed):
        return
    uses = {use: one for use, names in USES.items() for one in typed if one in names}
    if len(uses) > 1:
        *_, (use, _) = uses.items()
        first = next(iter(uses.values()))
        raise UserError(f"{use}: remove {first}")
    if set(COMPLETION) & set(typed) and not any("=" in word for word in overrides):
        raise UserError(f"{typed[0]}: expected a shell: type {typed[0]} install=bash")
    alone = next((flag for flag in typed if flag in OF_CFG), None)
    if alone is not None and not set(CFG) & set(typed):
        raise UserError(f"{alone} needs --cfg: type --cfg job {alone}")


def _require_value(flag: str, value: str) -> None:
    """Require the value of a flag, which Hydra would otherwise take from the next word.

    Raises:
        UserError: there is no value, or it is not one of the flag's choices.
    """
    if flag in CFG and value not in CFG_VALUES:
        typed = f"{flag} {value}".strip()
        raise UserError(f"{typed}: expected one of {', '.join(CFG_VALUES)}: type {flag} job")
    if flag in CONFIG_PATH and not Path(value).is_absolute():
        raise UserError(
            f"{flag} {value} would replace all of glimpse's configuration files: type --config-dir {value} "
            "to add yours"
        )
    if not value or value.startswith("-"):
        raise UserError(
            f"{flag}: expected a value after it, found {value or 'nothing'}: type {flag} <value>"
        )


def is_sweep(flags: Sequence[str]) -> bool:
    """Whether the flags ask for a sweep."""
    return bool(set(MULTIRUN) & set(flags))


def require_their_use(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Require -m for settings that only a sweep uses, and report names of folders that are ignored.

    A command that only prints its configuration may choose any.

    Raises:
        UserError: -m is missing.
    """
    is_swept = is_sweep(flags)
    if {flag.partition("=")[0] for flag in flags} & {*CFG, *INFO, *HELP}:
        return  # nothing runs
    for word in overrides:
        setting = word.lstrip("+")
        if not is_swept and setting.startswith(OF_SWEEPS):
            raise UserError(f"{word} is a setting of sweeps: type -m too")
        if setting.startswith(IGNORED[is_swept]):
            where = "in a sweep" if is_swept else "without -m"
            print(f"{word} is not used {where}", file=sys.stderr)


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
    if config_dir is not None and names & set(CONFIG_DIR) and not names & set(CONFIG_NAME):
        place = next(values_of(flags, CONFIG_DIR))
        if not (Path(place) / f"{config_name}.yaml").is_file():
            searchpath = f"hydra.searchpath=[file://{Path(place).resolve()}]"
            raise UserError(
                f"{CONFIG_DIR[0]} {place} would replace this project's own folder, {config_dir}: type "
                f"{in_shell(searchpath)} to add yours"
            )
    if config_dir is not None and not names & set(CONFIG_DIR):
        flags = [CONFIG_DIR[0], str(config_dir), *flags]
    if config_name is not None and not names & set(CONFIG_NAME):
        flags = [CONFIG_NAME[0], config_name, *flags]
    return flags
