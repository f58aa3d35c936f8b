"""Build objects from the configuration. Nothing else in glimpse instantiates a `_target_`.

Before a target is called, its package, its base type and its arguments are checked.
"""

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from glimpse.config.schema import LIBRARIES, OURS, TARGETS
from glimpse.errors import UserError


def build(group: str, node: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Build the object that a group's configuration names.

    This is the only call of `hydra.utils.instantiate`.

    Args:
        group: A key of `TARGETS`.
        node: The group's configuration, with `_target_` and keyword arguments; empty for no object.
        *args: Positional arguments that are not in the configuration, such as the ImageSpec.
        **kwargs: Keyword arguments that are not in the configuration.

    Returns:
        The object, or None if the node is empty (`augment=none`, `logger=none`).

    Raises:
        UserError: the target is not of the group's base type, or rejects its arguments.
    """
    if not node:
        return None
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    values = plain(node) if isinstance(node, DictConfig) else dict(node)
    values = {key: value for key, value in values.items() if key not in OURS.get(group, ())}
    target = str(node["_target_"])
    found = require_target(group, target)
    named = {key: value for key, value in values.items() if key != "_target_"}
    _require_arguments(group, target, found, args, named | kwargs)
    try:
        return instantiate(values, *args, _convert_="all", _recursive_=False, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError | TypeError) and target.startswith(LIBRARIES):
            reason = (str(cause).splitlines() or ["no reason given"])[0]
            raise UserError(f"{group} {target} rejected its arguments: {reason}") from error
        if isinstance(cause, ModuleNotFoundError):
            stated = re.search(r"'([\w-]+)", str(cause))  # as "Requirement 'wandb>=0.12' not met"
            missing = cause.name or (stated[1] if stated else "that it names")
            raise UserError(
                f"{group} {target} needs the package {missing}: type pip install {missing}"
            ) from error
        if not isinstance(cause, UserError):
            cause.add_note(f"while building {group} {target}")
        raise cause from None


def require_target(group: str, target: str) -> Any:
    """Import a target: a class of the group's base type, or a glimpse function that returns one.

    Raises:
        UserError: the target is something else.
    """
    packages, base_path = TARGETS[group]
    if not target.startswith(packages):
        raise UserError(f"{group}._target_={target}: expected a target in {', '.join(packages)}")
    found, base = _locate(target), _locate(base_path)
    built = found
    if inspect.isfunction(found) and found.__module__.startswith("glimpse."):
        built = inspect.signature(found, eval_str=True).return_annotation
    if not (inspect.isclass(built) and issubclass(built, base)):
        raise UserError(f"{group}._target_={target}: expected a {base_path}")
    return found


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a class or function; empty if they are unknown."""
    try:
        return inspect.signature(target).parameters
    except ValueError:  # a class written in C has no signature
        return {}


def _require_arguments(
    group: str, target: str, found: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Raise a UserError, before the call, if the target does not accept these arguments."""
    try:
        inspect.signature(found).bind(*args, **kwargs)
    except TypeError as error:
        raise UserError(f"{group} {target} does not accept these arguments: {error}") from error
    except ValueError:  # a class written in C has no signature
        return


def _locate(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"_target_={path}: this name cannot be imported") from error


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain dicts, lists, strings and numbers, as in checkpoints."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
