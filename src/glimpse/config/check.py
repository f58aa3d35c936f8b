"""Reject a composed configuration that contains a mistake.

Hydra composes the configuration. This file checks the result before anything heavy is imported or
any data is read. It reports unknown keys (including those added by `+key` or an experiment file),
values of a different type than the default, numbers out of range, missing values, and a `_target_`
that cannot be one. combinations.py checks that settings fit each other, places.py that files exist,
and build.py the types of targets.

The YAML files are the schema: a key is known if it appears in the chosen files of `conf/`, and the
type of its value there is the type that it accepts.
"""

import math
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from glimpse.config.combinations import check_combinations
from glimpse.config.folder import ROOT, config_folder, config_folders
from glimpse.config.keys import (
    content_of,
    dotted_keys,
    fraction_of_own,
    leaves,
    removed_key,
    unknown_key,
)
from glimpse.config.packages import require_package
from glimpse.config.places import check_places
from glimpse.config.quoting import as_value, quoted
from glimpse.config.schema import (
    BUILT_FROM_ONE,
    CHOICES,
    EXAMPLES,
    GROUPS,
    LISTS,
    NOT_KNOWN_YET,
    NOT_PASSED_ON,
    ONLY_FOR_OURS,
    OTHER_KINDS,
    PAIRS,
    RANGES,
    SHARES,
    SIZES,
    TAKES_A_MAPPING,
    TARGETS,
    UNBOUNDED,
)
from glimpse.errors import UserError

RANGED = ("glimpse", "torch")  # packages whose classes have the ranges of `RANGES`
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")  # package.module.Class


def check(
    config: DictConfig,
    choices: Mapping[str, Any],
    *,
    root: str = ROOT,
    searchpath: Sequence[str] = (),
    known_before: MutableMapping[tuple[str, ...], dict[str, Any]] | None = None,
) -> None:
    """Reject a composed configuration that contains a mistake.

    Args:
        config: The composed configuration.
        choices: The chosen file of each group (`hydra.runtime.choices`).
        root: The name of the root configuration (`hydra.job.config_name`).
        searchpath: Folders of configuration files that the command added (`hydra.searchpath`).
        known_before: A cache of the known keys by chosen files, which the checks of a sweep share.

    Raises:
        UserError: there is a mistake. The message names the first wrong key and what to type
            instead.
    """
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    _require_single_choices(config, choices)
    _refuse_dotted_keys(resolved, [root, *(f"{group}/{name}" for group, name in choices.items())])
    files = _same_files(config, choices, searchpath)
    remembered = {} if known_before is None else known_before
    if files not in remembered:
        remembered[files] = dict(leaves(compose(root, overrides=list(files))))
    known = remembered[files]  # and their defaults
    found = dict(leaves(resolved))
    check_targets(resolved)
    for off in _turned_off(config):
        if any(key.startswith(f"{off}.") for key in known):
            del found[off]
            known = {k: v for k, v in known.items() if not k.startswith(f"{off}.")}
    for key in found:
        if key not in known and not key.startswith(TAKES_A_MAPPING):
            raise UserError(unknown_key(key, known))
    _require_nothing_removed(known, found, choices)
    _require_targets_named(resolved, choices)
    for key in sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{key} is not set and has no default: type {key}=<value>")
    for key, value in found.items():
        _check_kind(key, value, known.get(key))
        _check_value(key, value, known.get(key), found)
    check_combinations(resolved, choices)
    check_places(resolved)


def _refuse_dotted_keys(config: DictConfig, chosen: Sequence[str]) -> None:
    """Reject a key such as `optimizer.lr` in a file, which YAML takes for one name.

    Nothing would read it, and it has the same dotted name as the key that was meant. The
    configuration was composed from the files `chosen`, named without `.yaml`.
    """
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    for key, value in dotted_keys(content):
        folders = config_folders(sys.argv[1:])
        files = [folder / f"{name}.yaml" for folder in folders for name in chosen]
        found = [file for file in files if key in dict(dotted_keys(content_of(file) or {}))]
        where = f" in {found[-1]}" if found else ""
        *above, last = key.split(".")
        typed = "…" if isinstance(value, dict) else as_value(value)
        lines = " and, indented below it, ".join([*(f"{part}:" for part in above), last])
        raise UserError(
            f"{key}{where}: a dot does not separate keys in YAML: write {lines}: {typed}"
        )


def _require_nothing_removed(
    known: Mapping[str, Any], found: Mapping[str, Any], choices: Mapping[str, Any]
) -> None:
    """Require each key of the chosen files to be there, itself or as a mapping."""
    there = {part for key in found for part in _with_parents(key)}
    gone = next((key for key in known if key not in there), None)
    if gone is None:
        return
    callback = re.fullmatch(r"callbacks\.(\w+)\._target_", gone)
    if callback and not choices.get("experiment"):
        raise UserError(
            f"callbacks.{callback[1]} has keys, but it is not chosen: type callbacks=[{callback[1]}] too"
        )
    if callback:  # callbacks=[] removed a callback whose keys an experiment sets
        raise UserError(
            f"callbacks without {callback[1]}, but the experiment sets its keys: type "
            f"callbacks.{callback[1]}=null to turn it off"
        )
    above = next(part for part in _with_parents(gone) if part not in there)
    raise UserError(removed_key(above.removesuffix("._target_")))


def _with_parents(key: str) -> list[str]:
    """The keys of the mappings that contain a key, the outermost first, then the key."""
    parts = key.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _require_single_choices(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Require one choice for each group that takes one.

    Hydra would mix the files of model=[linear,mlp].
    """
    for group in GROUPS:
        has_keys_of_the_root = group in {**NOT_PASSED_ON, **ONLY_FOR_OURS}
        is_removed = group not in config or (
            has_keys_of_the_root and "_target_" not in config[group]
        )
        if group not in choices and group != "augment" and not is_removed:
            raise UserError(
                f"{group}=[…]: expected one choice, found a list: type {group}=<choice>, or -m "
                f"{group}=<choice>,<choice> to try each"
            )


def _turned_off(config: DictConfig) -> list[str]:
    """The keys of the callbacks, metrics and loggers that null turns off."""
    return [
        f"{group}.{name}"
        for group in LISTS
        for name, node in (config.get(group) or {}).items()
        if node is None
    ]


def check_values(config: DictConfig, before: DictConfig) -> None:
    """Check the targets and numbers of a configuration that has changed since its full check.

    Raises:
        UserError: a value is not allowed. The message names the first such key.
    """
    check_targets(config)
    known, found = dict(leaves(before)), dict(leaves(config))
    for key, value in found.items():
        _check_value(key, value, known.get(key), found)


def _same_files(
    config: DictConfig, choices: Mapping[str, Any], searchpath: Sequence[str]
) -> tuple[str, ...]:
    """The overrides that choose the same files and set no keys."""
    chosen = {group: str(choices[group]) for group in GROUPS if choices.get(group) is not None}
    overrides = [f"{group}={_as_choice(name)}" for group, name in chosen.items()]
    for group in LISTS:
        named = [name for name in str(choices.get(group) or "").strip("[]").split(",") if name]
        for name in map(str, config.get(group) or {}):  # [] may leave keys that an experiment sets
            if name not in named and (config_folder() / group / f"{name}.yaml").exists():
                named.append(name)
        overrides.append(f"{group}=[{','.join(named)}]")
    if searchpath:
        overrides.append(f"hydra.searchpath=[{','.join(map(quoted, searchpath))}]")
    return tuple(overrides)


def _as_choice(name: str) -> str:
    """Quote the name of a file that Hydra would not read as it stands."""
    return name if re.fullmatch(r"[\w./-]+|\[.*\]", name, re.ASCII) else quoted(name)


def _check_kind(key: str, value: Any, default: Any) -> None:
    if value is None and default == NOT_KNOWN_YET:
        raise UserError(
            f"{key}=null: expected a value; for a name that is null, type \"{key}='null'\""
        )
    if NOT_KNOWN_YET in (value, default):
        return
    kinds = OTHER_KINDS.get(key) or (() if default is None else (type(default),))
    if not kinds or (value is None and (default is None or key in OTHER_KINDS)):
        return
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return
    if isinstance(value, list) and isinstance(default, list):
        _check_numbers(key, value, default)
    if key in SIZES and not isinstance(value, kinds):
        raise UserError(_size_expected(key, value))
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
        names = {
            int: "a whole number", float: "a number", bool: "true or false", str: "a word",
            dict: "a mapping",
        }  # fmt: skip
        expected = " or ".join(names.get(kind, f"a {kind.__name__}") for kind in kinds)
        example = EXAMPLES.get(key, default)
        hint = f", such as {key}={as_value(example)}" if example is not None else ""
        if type(value) is float and type(default) is int:
            hint += fraction_of_own(key, default)
        raise UserError(f"{key}={as_value(value)}: expected {expected}{hint}")


def _require_finite(key: str, value: Any, default: Any) -> None:
    """Require numbers to be finite. An infinite number would fail later, with an unrelated error.

    A key may be infinite if its default is, or if it is in UNBOUNDED.
    """
    may_be_infinite = key in UNBOUNDED or any(map(math.isinf, _floats(default)))
    is_wrong = math.isnan if may_be_infinite else lambda number: not math.isfinite(number)
    if not any(map(is_wrong, _floats(value))):
        return
    hint = f", such as {key}={as_value(default)}" if type(default) in (int, float, list) else ""
    raise UserError(f"{key}={as_value(value)}: expected a finite number{hint}")


def _floats(value: Any) -> list[float]:
    return [one for one in (value if isinstance(value, list) else [value]) if type(one) is float]


def _check_numbers(key: str, values: list[Any], default: list[Any]) -> None:
    """Require numbers if the default is a list of numbers, and whole numbers if all of them are."""
    kinds = {type(number) for number in default}
    if not kinds or not kinds <= {int, float}:
        return
    allowed = kinds | {int}
    wrong = next((value for value in values if type(value) not in allowed), None)
    if wrong is not None:
        numbers = "numbers" if float in kinds else "whole numbers"
        raise UserError(
            f"{key}={as_value(values)}: expected {numbers}, such as {key}={as_value(default)}"
        )


def _is_of_another_class(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key belongs to a class for which our ranges were not made, such as torchvision's."""
    group, _, rest = key.partition(".")
    if group == "data" or group not in (*BUILT_FROM_ONE, "augment"):  # datasets share their keys
        return False
    within = f"{group}.{rest.rpartition('.')[0]}".rstrip(".")  # augment.jitter.hue, in a list
    target = str(config.get(f"{within}._target_", ""))
    return bool(target) and target.partition(".")[0] not in RANGED


def _check_value(key: str, value: Any, default: Any, config: Mapping[str, Any]) -> None:
    """Require numbers to be finite, and a value to be in the range of its key."""
    _require_finite(key, value, default)
    if not _is_of_another_class(key, config):
        _check_range(key, value)


def _check_range(key: str, value: Any) -> None:
    # augment.cutmix.alpha, chosen in a list, has the range of augment.alpha
    key_of_range = re.sub(r"^augment\.\w+\.(?=\w+$)", "augment.", key)
    if key in CHOICES and value not in CHOICES[key]:
        choices = ", ".join(dict.fromkeys(map(as_value, CHOICES[key])))
        raise UserError(f"{key}={as_value(value)}: expected one of {choices}")
    if key in SIZES and isinstance(value, list) and [type(side) for side in value] != [int, int]:
        raise UserError(_size_expected(key, value))
    if key in PAIRS and isinstance(value, list) and len(value) != 2:
        raise UserError(f"{key}={as_value(value)}: expected two numbers, such as {key}=[0.9,0.999]")
    if key in SHARES and isinstance(value, float) and value > 1:
        raise UserError(
            f"{key}={value}: expected a share of at most 1.0, or a whole number of batches, such as "
            f"{key}={math.ceil(value)}"
        )
    if key_of_range not in RANGES:
        return
    lowest, highest = RANGES[key_of_range]
    for number in value if isinstance(value, list) else (value,):
        if isinstance(number, int | float) and not lowest <= number <= highest:
            bound = f"at least {lowest}" if number < lowest else f"at most {highest}"
            raise UserError(f"{key}={as_value(value)}: expected {bound}")


def _size_expected(key: str, value: Any) -> str:
    return (
        f"{key}={as_value(value)}: expected a size in pixels, such as {key}=64 for a square, or {key}=[48,64] for "
        "height and width"
    )


def check_targets(config: DictConfig) -> None:
    """Require every `_target_` to be in a group that we build, and its package to be found.

    Modules of the standard library are rejected.
    """
    for key, target in leaves(config):
        if key.rpartition(".")[2] != "_target_":
            if isinstance(target, list):
                _refuse_nested_targets(key, target)
            continue
        group, _, rest = key.partition(".")
        depths = (1,) if group in LISTS else (0, 1) if group == "augment" else (0,)
        if group not in TARGETS:
            raise UserError(f"{key}={target}: a _target_ is not allowed here: remove it")
        if rest.count(".") not in depths:
            raise UserError(
                f"{key}={target}: a _target_ is not allowed inside another part: write a function that "
                "returns the whole object, and name it in _target_"
            )
        is_name = NAME.fullmatch(str(target)) is not None
        package = str(target).partition(".")[0]
        if not is_name or package in sys.stdlib_module_names:
            hint = f"; {package} is a module of Python itself, give yours another name" * is_name
            raise UserError(
                f"{key}={target}: expected a {TARGETS[group][0]}, as package.module.Class{hint}"
            )
        require_package(key, str(target))


def _require_targets_named(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Require the chosen file of each group with a single part to have a `_target_`."""
    if "accumulate_grad_batches" not in config.trainer:
        raise UserError(
            f"trainer={choices.get('trainer')}: its file lacks the keys of every trainer; write "
            "defaults: [auto] as its first line"
        )
    for group in LISTS:
        for name, node in (config.get(group) or {}).items():
            if OmegaConf.is_dict(node) and "_target_" not in node:
                raise UserError(_no_target(group, f"[{name}]"))
    for group in BUILT_FROM_ONE:
        node = config.get(group)
        if OmegaConf.is_dict(node) and "_target_" in node:
            if group == "data" and "global_batch_size" not in node:
                raise UserError(
                    f"data={choices.get(group)}: its file lacks the keys of every dataset; write "
                    "defaults: [_common] as its first line"
                )
            continue
        raise UserError(_no_target(group, choices.get(group)))


def _no_target(group: str, choice: object) -> str:
    return (
        f"{group}={choice}: its file has no _target_, expected the name of a "
        f"{TARGETS[group][0]}, such as _target_: mypkg.Name (with a space after the colon)"
    )


def _refuse_nested_targets(key: str, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, dict):
            if "_target_" in value:
                raise UserError(
                    f"{key}: a _target_ ({value['_target_']}) is not allowed in a list; write a function "
                    "that returns the whole object, and name it in _target_"
                )
            _refuse_nested_targets(key, value.values())
        elif isinstance(value, list):
            _refuse_nested_targets(key, value)
