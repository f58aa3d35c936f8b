"""Reject a composed configuration that contains a mistake.

Hydra composes the configuration. This file checks the result before anything heavy is imported or
any data is read. It reports unknown keys (including those added by `+key` or an experiment file),
values of a different type than the default, numbers out of range, missing values, settings that
contradict each other, and a `_target_` that cannot be one. build.py checks the types of targets.

The YAML files are the schema: a key is known if it appears in the chosen files of `conf/`, and the
type of its value there is the type that it accepts.
"""

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from hydra import compose
from omegaconf import DictConfig, ListConfig, OmegaConf

from glimpse.config.folder import ROOT, config_folder
from glimpse.config.quoting import quoted
from glimpse.config.schema import (
    APART,
    CHOICES,
    GROUPS,
    LISTS,
    NOT_KNOWN_YET,
    OTHER_KINDS,
    RANGES,
    SIZES,
    TAKES_A_MAPPING,
    TARGETS,
    WATCHERS,
)
from glimpse.errors import UserError
from glimpse.monitor import ALWAYS_LOGGED, DEFAULT, what_is_wrong

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
        known_before: The known keys by choices of files, which checks of one sweep share.

    Raises:
        UserError: there is a mistake. The message names the first wrong key and what to type
            instead.
    """
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    files = _same_files(config, choices, searchpath)
    remembered = {} if known_before is None else known_before
    if files not in remembered:
        remembered[files] = dict(leaves(compose(root, overrides=list(files))))
    known = remembered[files]  # and their defaults
    found = dict(leaves(resolved))
    _check_targets(resolved)
    for off in _turned_off(config):
        if any(key.startswith(f"{off}.") for key in known):
            del found[off]
            known = {k: v for k, v in known.items() if not k.startswith(f"{off}.")}
    for key in found:
        if key not in known and not key.startswith(TAKES_A_MAPPING):
            raise UserError(unknown_key(key, known))
    for key in known:
        if key not in found and not any(name.startswith(f"{key}.") for name in found):
            callback = re.fullmatch(r"callbacks\.(\w+)\._target_", key)
            if callback:  # callbacks=[] removed a callback whose keys an experiment sets
                raise UserError(
                    f"callbacks without {callback[1]}, but the experiment sets its keys: type "
                    f"callbacks.{callback[1]}=null to turn it off"
                )
            raise UserError(f"{key} was removed from the configuration: do not type ~{key}")
    _require_targets_named(resolved, choices)
    for key in sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{key} is not set and has no default: type {key}=<value>")
    for key, value in found.items():
        _check_kind(key, value, known.get(key))
        _check_range(key, value)
    if resolved.task != "fit" and resolved.resume:
        raise UserError(f"task={resolved.task} cannot be resumed: remove resume")
    if resolved.lr_find.start >= resolved.lr_find.end:
        raise UserError(
            f"lr_find.start={resolved.lr_find.start:g}: expected less than "
            f"lr_find.end={resolved.lr_find.end:g}"
        )
    check_monitors(resolved, _logged(resolved))
    _check_folds(resolved)
    chosen = {name for name, node in (resolved.callbacks or {}).items() if node}
    for one, other, why in APART:
        if {one, other} <= chosen:
            raise UserError(f"callbacks={one} and {other} exclude each other: {why}; remove one")
    if "progressive_sizes" in chosen and choices.get("scheduler") == "plateau":
        raise UserError(
            "scheduler=plateau monitors val/loss, which progressive_sizes raises until its last "
            "stage: type scheduler=onecycle"
        )
    pretrained = resolved.model._target_ == "glimpse.models.pretrained.Pretrained"
    published = pretrained and resolved.model.weights not in (None, "none")
    for name in ("finetune", "frozen_features"):
        if name in chosen and not published:
            without = "model.weights=none" if pretrained else "this model"
            raise UserError(
                f"callbacks=[{name}] freezes layers, which needs pretrained weights; {without} has "
                "none: type model=pretrained model.weights=default"
            )
    if published and resolved.optimizer.get("matrix_lr") is not None:
        raise UserError(
            "optimizer.matrix_lr makes Muon normalise every weight matrix, which destroys pretrained "
            "weights: type optimizer.matrix_lr=null"
        )
    if resolved.tta and not resolved.test:
        raise UserError(
            "tta=flip needs the final evaluation, which test=false skips: type test=true or tta=null"
        )


def require_one_batch_size(config: DictConfig, typed: Iterable[str]) -> None:
    """Refuse `data.batch_size` beside `data.global_batch_size`, which takes its place.

    Args:
        config: The composed configuration.
        typed: The overrides.

    Raises:
        UserError: both are given.
    """
    both = any(override.lstrip("+").startswith("data.batch_size=") for override in typed)
    if both and config.data.get("global_batch_size") is not None:
        raise UserError(
            f"data.batch_size={config.data.batch_size} and data.global_batch_size="
            f"{config.data.global_batch_size}: type one of them; the first is the batch of each "
            "process, the second that of all together"
        )


def check_monitors(config: DictConfig, logged: Iterable[str]) -> None:
    """Require the metrics that choose the checkpoint, stop the run or slow it down to be logged.

    Args:
        config: The resolved configuration.
        logged: The names of the metrics that the run logs.

    Raises:
        UserError: a metric is not. The message names the nearest one that is.
    """
    logged = list(logged)
    watched = {"monitor": config.monitor or DEFAULT}
    for key, value in leaves(config):
        owner, _, last = key.rpartition(".")
        is_watcher = owner and OmegaConf.select(config, f"{owner}._target_") in WATCHERS
        if last == "monitor" and is_watcher and value:
            watched[key] = value
    if config.monitor is None and config.mode is not None:
        raise UserError(f"mode={config.mode} needs a monitor: type monitor={DEFAULT}")
    available = [path.stem for path in (config_folder() / "metrics").glob("[!_]*.yaml")]
    for key, name in watched.items():
        wrong = what_is_wrong(key, str(name), logged, available)
        if wrong:
            raise UserError(wrong)


def _logged(config: DictConfig) -> list[str]:
    """The metrics that a run logs, as far as its configuration tells."""
    return [*ALWAYS_LOGGED, *(f"val/{name}" for name in config.get("metrics") or {})]


def _turned_off(config: DictConfig) -> list[str]:
    """The keys of the callbacks, metrics and loggers that null turns off."""
    return [
        f"{group}.{name}"
        for group in LISTS
        for name, node in (config.get(group) or {}).items()
        if node is None
    ]


def _check_folds(config: DictConfig) -> None:
    """Require `data.folds` and `data.fold` to fit each other."""
    folds, fold = config.data.get("folds"), config.data.get("fold")
    if folds is None and fold is not None:
        raise UserError(
            f"data.fold={fold} needs the number of folds: type data.folds=5 data.fold={fold}"
        )
    if folds is not None and fold is None:
        every = ",".join(map(str, range(min(folds, 10)))) + (",…" if folds > 10 else "")
        raise UserError(
            f"data.folds={folds} needs the fold that validates: type data.fold=0 for one, or "
            f"-m data.fold={every} for all of them"
        )
    if folds is not None and fold >= folds:
        raise UserError(f"data.fold={fold}: expected 0 to {folds - 1}, as data.folds={folds}")


def check_values(config: DictConfig) -> None:
    """Check the targets and numbers of a configuration that has changed since its full check.

    Raises:
        UserError: a value is not allowed. The message names the first such key.
    """
    _check_targets(config)
    for key, value in leaves(config):
        _check_range(key, value)


def _same_files(
    config: DictConfig, choices: Mapping[str, Any], searchpath: Sequence[str]
) -> tuple[str, ...]:
    """The overrides that choose the same files, and set nothing."""
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


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, plain value) of a configuration. Lists count as values.

    Missing values and interpolations are yielded as `NOT_KNOWN_YET`.
    """
    for key in node:
        name = f"{prefix}{key}"
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            yield name, NOT_KNOWN_YET
            continue
        value = node[key]
        if isinstance(value, DictConfig) and len(value):
            yield from leaves(value, f"{name}.")
        elif isinstance(value, DictConfig):
            continue
        elif isinstance(value, ListConfig):
            yield name, OmegaConf.to_container(value)
        else:
            yield name, value


def unknown_key(key: str, known: Iterable[str]) -> str:
    """An error message for an unknown key, with the most similar known key."""
    known = list(known)
    group, _, rest = key.partition(".")
    if group == "experiment" and rest in known:
        return (
            f"{key} is not a key of this configuration: write # @package _global_ as the first line of "
            "the experiment's file, so that it sets the keys of the run"
        )
    swapped = [name for name in known if sorted(name) == sorted(key)]  # modle is model, not mode
    near = swapped or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:  # perhaps only the group is wrong
        last = key.rpartition(".")[2]
        near = [name for name in known if name.rpartition(".")[2] == last][:1]
    hint = f"did you mean {near[0]}?" if near else "type python train.py --cfg job to list the keys"
    return f"{key} is not a key of this configuration: {hint}"


def unknown_choice(group: str, choice: str, available: Iterable[str]) -> str:
    """An error message for an unknown choice of a group, with the most similar known choice."""
    available = sorted(available)
    near = difflib.get_close_matches(choice, available, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{group}={choice}: there is no such {group}{hint}; choose from {', '.join(available)}"


def _check_kind(key: str, value: Any, default: Any) -> None:
    if NOT_KNOWN_YET in (value, default):
        return
    kinds = OTHER_KINDS.get(key) or (() if default is None else (type(default),))
    if not kinds or (value is None and (default is None or key in OTHER_KINDS)):
        return
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        expected = " or ".join(names.get(kind, f"a {kind.__name__}") for kind in kinds)
        example = f"={default}" if default is not None else ""
        hint = f", such as {key}{example}" if example else ""
        raise UserError(f"{key}={value}: expected {expected}{hint}")


def _check_range(key: str, value: Any) -> None:
    # augment.cutmix.alpha, chosen in a list, has the range of augment.alpha
    key_of_range = re.sub(r"^augment\.\w+\.(?=\w+$)", "augment.", key)
    if key in CHOICES and value not in CHOICES[key]:
        choices = ", ".join(_as_typed(one) for one in CHOICES[key])
        raise UserError(f"{key}={value}: expected one of {choices}")
    if key in SIZES and isinstance(value, list) and [type(side) for side in value] != [int, int]:
        raise UserError(
            f"{key}={value}: expected pixels, as {key}=64 for a square or {key}=[32,64] for height and width"
        )
    if key_of_range not in RANGES:
        return
    lowest, highest = RANGES[key_of_range]
    for number in value if isinstance(value, list) else (value,):
        if isinstance(number, int | float) and not lowest <= number <= highest:
            bound = f"at least {lowest}" if number < lowest else f"at most {highest}"
            raise UserError(f"{key}={value}: expected {bound}")


def _as_typed(value: Any) -> str:
    """Format a plain value as it is typed on the command line."""
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def _check_targets(config: DictConfig) -> None:
    """Require every `_target_` to be in a group that we build, and no name of the standard library."""
    for key, target in leaves(config):
        if key.rpartition(".")[2] != "_target_":
            if isinstance(target, list):
                _refuse_nested_targets(key, target)
            continue
        group, _, rest = key.partition(".")
        depths = (1,) if group in LISTS else (0, 1) if group == "augment" else (0,)
        if group not in TARGETS or rest.count(".") not in depths:
            raise UserError(f"{key}={target}: a _target_ is not allowed here")
        is_name = NAME.fullmatch(str(target)) is not None
        if not is_name or str(target).partition(".")[0] in sys.stdlib_module_names:
            raise UserError(
                f"{key}={target}: expected a {TARGETS[group][0]}, as package.module.Class"
            )


def _require_targets_named(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Require the chosen file of each group that has one part to name what it builds."""
    for group in ("data", "model", "optimizer", "scheduler", "loss"):
        node = config.get(group)
        if OmegaConf.is_dict(node) and "_target_" in node:
            continue
        raise UserError(
            f"{group}={choices.get(group)}: its file has no _target_, expected the name of a "
            f"{TARGETS[group][0]}, such as _target_: mypkg.Name"
        )


def _refuse_nested_targets(key: str, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, dict):
            if "_target_" in value:
                raise UserError(f"{key}: a _target_ ({value['_target_']}) is not allowed in a list")
            _refuse_nested_targets(key, value.values())
        elif isinstance(value, list):
            _refuse_nested_targets(key, value)
