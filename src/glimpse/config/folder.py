"""The folders of configuration files: this package's own, and those that a command line adds."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG_DIR = ("--config-dir", "-cd")
CONFIG_NAME = ("--config-name", "-cn")
ROOT = "train"  # the name of the root configuration


def config_folder() -> Path:
    """The `conf/` folder of the checkout, or of the package if it was installed as a wheel."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"


def config_folders(arguments: Sequence[str]) -> list[Path]:
    """Our folder, then those that `--config-dir` and `hydra.searchpath` add and that override it."""
    found = [config_folder(), *map(Path, values_of(arguments, CONFIG_DIR))]
    for word in arguments:
        key, _, value = word.partition("=")
        if key.lstrip("+") == "hydra.searchpath":
            places = typed_list(value.replace("://", "@")) if value[:1] == "[" else [value]
            found += [Path(str(place).removeprefix("file@")) for place in places]
    return [folder for folder in found if folder.is_dir()]


def typed_list(value: str) -> list[Any]:
    """The items of a list as typed; empty for anything else, which Hydra explains."""
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        return []
    return found if isinstance(found, list) else []


def root_name(arguments: Sequence[str]) -> str:
    """The name of the root configuration: `--config-name`, or our own."""
    return next(values_of(arguments, CONFIG_NAME), ROOT).removesuffix(".yaml")


def values_of(arguments: Sequence[str], flags: Sequence[str]) -> Iterator[str]:
    """The values of a flag, in any of its spellings."""
    for number, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        if flag not in flags:
            continue
        if equals:
            yield value
        elif number + 1 < len(arguments):
            yield arguments[number + 1]


def choices_of(group: str, folders: Sequence[Path]) -> list[str]:
    """The names of a group's files."""
    return sorted(files_of(group, folders))


def groups_of(folders: Sequence[Path]) -> set[str]:
    """The groups of configuration files: the subfolders that hold choices."""
    return {file.parent.name for folder in folders for file in folder.glob("*/[!_]*.yaml")}


def files_of(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The file of each choice of a group; those of later folders replace those of earlier ones.

    Files that begin with an underscore are parts of others.
    """
    files = [file for folder in folders for file in (folder / group).glob("[!_]*.yaml")]
    return {file.stem: file for file in files if file.is_file()}
