"""The configuration: what may stand in it, what its errors say, and the ONE place that instantiates.

Hydra composes; this file checks what came out before anything heavy is imported or any data is read:
unknown keys (also those that came by `+key` or an experiment file), values of another kind than the
default, numbers out of range, missing values, and `_target_`s outside their group's packages.

The YAML files are the schema: a key is known if the chosen files of `conf/` hold it, and the kind of
its value there is the kind it takes.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, ListConfig, OmegaConf

from glimpse.errors import UserError

GROUPS = ("data", "model", "optimizer", "scheduler", "loss", "augment", "trainer", "logger")

# group: (packages a `_target_` may come from, base type of what it builds)
TARGETS: dict[str, tuple[tuple[str, ...], str]] = {
    "data": (("glimpse.data.",), "glimpse.data.module.ImageDataModule"),
    "model": (("glimpse.models.",), "torch.nn.Module"),
    "optimizer": (("torch.optim.", "glimpse.muon."), "torch.optim.Optimizer"),
    "scheduler": (("glimpse.optim.",), "glimpse.optim.Schedule"),
    "loss": (("torch.nn.", "glimpse.losses."), "torch.nn.Module"),
    "augment": (("glimpse.data.augment.",), "glimpse.data.augment.base.Augmentation"),
    "callbacks": (
        ("lightning.pytorch.callbacks.", "glimpse.callbacks."),
        "lightning.pytorch.Callback",
    ),
    "logger": (("lightning.pytorch.loggers.",), "lightning.pytorch.loggers.Logger"),
}

LIBRARIES = ("torch.", "lightning.")  # whose refusals are about what was typed

# Keys that take more kinds of value than their default shows, most of them of Lightning's Trainer.
OTHER_KINDS: dict[str, tuple[type, ...]] = {
    "test": (bool, str),
    "trainer.devices": (int, str, list),
    "trainer.precision": (int, str),
    "trainer.fast_dev_run": (bool, int),
    "trainer.limit_train_batches": (int, float),
    "trainer.limit_val_batches": (int, float),
    "trainer.limit_test_batches": (int, float),
    "trainer.overfit_batches": (int, float),
    "trainer.val_check_interval": (int, float, str),
    "trainer.max_epochs": (int,),
    "trainer.min_epochs": (int,),
    "trainer.min_steps": (int,),
    "trainer.num_sanity_val_steps": (int,),
    "trainer.gradient_clip_val": (int, float),
    "trainer.check_val_every_n_epoch": (int,),
    "trainer.deterministic": (bool, str),
    "data.classes": (list,),
    "data.presize": (int,),
    "data.size": (int,),
    "data.pattern": (str,),
    "data.options": (dict,),
    "data.url": (str,),
    "data.sha256": (str,),
}

# key: (lowest, highest) value allowed
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.batch_size": (1, float("inf")),
    "data.val_fraction": (0, 0.9),
    "data.test_fraction": (0, 0.9),
    "data.presize": (1, 4096),
    "data.size": (1, 4096),
    "data.num_workers": (0, 1024),
    "data.num_classes": (2, float("inf")),
    "data.num_train": (2, float("inf")),
    "data.num_val": (1, float("inf")),
    "optimizer.lr": (0, float("inf")),
    "optimizer.matrix_lr": (0, float("inf")),
    "optimizer.num_iterations": (1, float("inf")),
    "optimizer.weight_decay": (0, float("inf")),
    "optimizer.momentum": (0, 1),
    "callbacks.ema.decay": (0, 1),
    "callbacks.pictures.every_n_epochs": (1, float("inf")),
    "lr_find.start": (1e-30, float("inf")),
    "lr_find.end": (1e-30, float("inf")),
    "lr_find.num_steps": (20, float("inf")),
    "trainer.max_epochs": (-1, float("inf")),
    "trainer.overfit_batches": (0, float("inf")),
    "trainer.accumulate_grad_batches": (1, float("inf")),
    "trainer.check_val_every_n_epoch": (1, float("inf")),
    "trainer.val_check_interval": (1e-9, float("inf")),
    "trainer.gradient_clip_val": (0, float("inf")),
    "trainer.log_every_n_steps": (0, float("inf")),
    "model.hidden": (1, float("inf")),
    "model.dropout": (0, 0.999),
    "model.patch": (1, 64),
    "model.stride": (1, 64),
    "callbacks.finetune.frozen_epochs": (0, float("inf")),
    "callbacks.finetune.backbone_factor": (1e-9, 1),
    "callbacks.finetune.depth_factor": (1e-9, 1),
    "augment.p": (0, 1),
    "augment.padding_fraction": (0, 1),
    "augment.side_fraction": (0, 1),
    "augment.brightness": (0, 1),
    "augment.contrast": (0, 1),
    "augment.saturation": (0, 1),
    "augment.hue": (0, 0.5),
    "augment.alpha": (0.01, float("inf")),
    "augment.mix_p": (0, 1),
    "augment.min_scale": (0.01, 1),
    "augment.max_rotate": (0, 180),
    "augment.max_zoom": (1, 10),
    "augment.max_warp": (0, 0.45),  # beyond a half the horizon is in the image
    "augment.p_affine": (0, 1),
    "augment.max_lighting": (0, 0.99),
    "augment.p_lighting": (0, 1),
}

CHOICES: dict[str, tuple[str | bool | None, ...]] = {
    "task": ("fit", "lr_find"),
    "tta": (None, "flip"),
    "test": (True, False, "val"),
    "data.normalize": ("none", "dataset", "imagenet"),
    "data.on_bad_file": ("error", "skip"),
    "trainer.profiler": (None, "simple", "advanced", "pytorch"),
}


# Callbacks that undo each other, or what one of them watches; and why.
APART: tuple[tuple[str, str, str], ...] = (
    ("frozen_features", "finetune", "features computed once cannot be trained"),
    ("frozen_features", "progressive_sizes", "features computed once have no size"),
    ("early_stopping", "progressive_sizes", "small images make val/loss worse until the last size"),
)

NOT_KNOWN_YET = "???"  # as OmegaConf writes it
TAKES_A_MAPPING = ("trainer.max_time.", "data.options.")  # values that have keys of their own


def check(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Refuse a composed configuration that cannot mean what its author wanted.

    Args:
        config: the composed configuration.
        choices: which file of each group was chosen (`hydra.runtime.choices`).

    Raises:
        UserError: naming the first key at fault and what to type instead.
    """
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    known = dict(leaves(_reference(config, choices)))
    found = dict(leaves(resolved))
    _check_targets(resolved)
    for name, node in (config.callbacks or {}).items():
        if node is None and any(key.startswith(f"callbacks.{name}.") for key in known):
            del found[f"callbacks.{name}"]  # null leaves a callback out
            known = {k: v for k, v in known.items() if not k.startswith(f"callbacks.{name}.")}
    for key in found:
        if key not in known and not key.startswith(TAKES_A_MAPPING):
            raise UserError(unknown_key(key, known))
    for key in known:
        if key not in found and not any(name.startswith(f"{key}.") for name in found):
            callback = re.fullmatch(r"callbacks\.(\w+)\._target_", key)
            if callback:  # callbacks=[] where an experiment sets what it chose
                raise UserError(
                    f"callbacks without {callback[1]}, whose keys the experiment sets: type "
                    f"callbacks.{callback[1]}=null to leave it out"
                )
            raise UserError(f"{key} was taken out of the configuration: leave ~{key} away")
    for key in sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{key} is not set, and it has no default: type {key}=<value>")
    for key, value in found.items():
        _check_kind(key, value, known.get(key))
        _check_range(key, value)
    if resolved.task != "fit" and resolved.resume:
        raise UserError(f"task={resolved.task} has nothing to go on with: leave resume out")
    if resolved.lr_find.start >= resolved.lr_find.end:
        raise UserError(
            f"lr_find.start={resolved.lr_find.start:g}: expected less than "
            f"lr_find.end={resolved.lr_find.end:g}"
        )
    chosen = {name for name, node in (resolved.callbacks or {}).items() if node}
    for one, other, why in APART:
        if {one, other} <= chosen:
            raise UserError(f"callbacks={one} and {other} do not go together: {why}; leave one out")
    if "progressive_sizes" in chosen and choices.get("scheduler") == "plateau":
        raise UserError(
            "scheduler=plateau watches val/loss, which progressive_sizes makes worse until the last "
            "size: type scheduler=onecycle"
        )
    pretrained = resolved.model._target_ == "glimpse.models.pretrained.Pretrained"
    published = pretrained and resolved.model.weights != "none"
    for name in ("finetune", "frozen_features"):
        if name in chosen and not published:
            without = "model.weights=none" if pretrained else "this model"
            raise UserError(
                f"callbacks=[{name}] freezes layers, which needs pretrained weights; {without} has "
                "none: type model=pretrained model.weights=default"
            )
    if published and resolved.optimizer.get("matrix_lr") is not None:
        raise UserError(
            "optimizer.matrix_lr brings every matrix to a norm of its own, which undoes pretrained "
            "weights: type optimizer.matrix_lr=null"
        )
    if resolved.tta and not resolved.test:
        raise UserError("tta=flip is measured at the end, which test=false leaves out")


def check_values(config: DictConfig) -> None:
    """Of a configuration that was checked once and changed since: its targets and numbers.

    Raises:
        UserError: naming the first key at fault.
    """
    _check_targets(config)
    for key, value in leaves(config):
        _check_range(key, value)


def _reference(config: DictConfig, choices: Mapping[str, Any]) -> DictConfig:
    """The same choice of files with nobody's values in it: what keys there are."""
    overrides = [f"{group}={choices[group]}" for group in GROUPS if choices.get(group) is not None]
    files = config_folder() / "callbacks"
    named = [str(name) for name in config.get("callbacks") or {}]
    named = [name for name in named if (files / f"{name}.yaml").exists()]
    overrides.append(f"callbacks=[{','.join(named)}]")
    return compose("train", overrides=overrides)


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, plain value) of a configuration; lists count as values.

    A value that is missing, or an interpolation, is `NOT_KNOWN_YET`.
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
    """One line for a key that is not in the configuration, with the nearest one that is."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:  # the group may be wrong where the last part is right
        last = key.rpartition(".")[2]
        near = [name for name in known if name.rpartition(".")[2] == last][:1]
    hint = (
        f"did you mean {near[0]}?" if near else "`python train.py --cfg job` prints those there are"
    )
    return f"{key} is not a key of this configuration: {hint}"


def unknown_choice(group: str, choice: str, available: Iterable[str]) -> str:
    """One line for a choice that a group does not have, with the nearest one that it has."""
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
    if key in CHOICES and value not in CHOICES[key]:
        choices = ", ".join(_as_typed(one) for one in CHOICES[key])
        raise UserError(f"{key}={value}: expected one of {choices}")
    if key in RANGES and isinstance(value, int | float):
        lowest, highest = RANGES[key]
        if not lowest <= value <= highest:
            bound = f"at least {lowest}" if value < lowest else f"at most {highest}"
            raise UserError(f"{key}={value}: expected {bound}")


def _as_typed(value: Any) -> str:
    """A plain value as one types it."""
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def _check_targets(config: DictConfig) -> None:
    """Every `_target_` stands where we build something, and names one of that group's packages."""
    for key, target in leaves(config):
        if key.rpartition(".")[2] != "_target_":
            if isinstance(target, list):
                _refuse_nested_targets(key, target)
            continue
        group, _, rest = key.partition(".")
        depth = rest.count(".")
        if group not in TARGETS or depth != (1 if group == "callbacks" else 0):
            raise UserError(f"{key}={target}: a _target_ is not allowed here")
        packages = TARGETS[group][0]
        if not str(target).startswith(packages):
            raise UserError(
                f"{key}={target}: only targets in {', '.join(p + '*' for p in packages)} are allowed"
            )


def _refuse_nested_targets(key: str, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, dict):
            if "_target_" in value:
                raise UserError(f"{key}: a _target_ ({value['_target_']}) is not allowed in a list")
            _refuse_nested_targets(key, value.values())
        elif isinstance(value, list):
            _refuse_nested_targets(key, value)


def build(group: str, node: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Build what a group's configuration names: the only call of `hydra.utils.instantiate`.

    Args:
        group: a key of `TARGETS`.
        node: the group's configuration, with `_target_` and keyword arguments; empty for nothing.
        *args: positional arguments that the configuration does not hold, such as the ImageSpec.
        **kwargs: keyword arguments likewise.

    Returns:
        The object, or None where the node names no target (`augment=none`, `logger=none`).

    Raises:
        UserError: the target is not of the group's base type, or refuses its arguments.
    """
    if not node:
        return None
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    values = plain(node) if isinstance(node, DictConfig) else dict(node)
    target = str(node["_target_"])
    found = _require_base(group, target)
    named = {key: value for key, value in values.items() if key != "_target_"}
    _require_arguments(group, target, found, args, named | kwargs)
    try:
        return instantiate(values, *args, _convert_="all", _recursive_=False, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError | TypeError) and target.startswith(LIBRARIES):
            reason = (str(cause).splitlines() or ["no reason is given"])[0]
            raise UserError(f"{group} {target} refused its arguments: {reason}") from error
        if not isinstance(cause, UserError):
            cause.add_note(f"while {group} {target} was built")
        raise cause from None


def _require_base(group: str, target: str) -> Any:
    """What the target names: a class of the group's base type, or a function of glimpse that returns one.

    Raises:
        UserError: it names something else.
    """
    packages, base_path = TARGETS[group]
    if not target.startswith(packages):
        raise UserError(f"{group}._target_={target}: not in {', '.join(packages)}")
    found, base = _locate(target), _locate(base_path)
    built = found
    if inspect.isfunction(found) and found.__module__.startswith("glimpse."):
        built = inspect.signature(found, eval_str=True).return_annotation
    if not (inspect.isclass(built) and issubclass(built, base)):
        raise UserError(f"{group}._target_={target}: it is not a {base_path}")
    return found


def _require_arguments(
    group: str, target: str, found: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Raises UserError where the target does not take these arguments, before it is called."""
    try:
        inspect.signature(found).bind(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{group} {target} does not take these arguments: {error}") from error
    except ValueError:  # a class written in C tells no signature
        return


def _locate(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"_target_={path}: nothing of that name can be imported") from error


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists, strings and numbers, as checkpoints carry it."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to dotted keys; lists become text, as the HPARAMS tab wants them."""
    rows: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = (
                value if isinstance(value, bool | int | float | str) else str(value)
            )
    return rows


def config_folder() -> Path:
    """The `conf/` of this checkout, for those who compose without `train.py`."""
    return Path(__file__).parents[2] / "conf"
