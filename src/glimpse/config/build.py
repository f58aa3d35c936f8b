"""Build objects from the configuration. Nothing else in glimpse instantiates a `_target_`.

Before a target is called, its type and its arguments are checked. The user's command line and
configuration folders may name targets of any package. A checkpoint may name only targets of the
packages that config/trust.py allows.
"""

import difflib
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from glimpse.command import in_shell
from glimpse.config.packages import is_here, is_installed, no_package
from glimpse.config.schema import LIBRARIES, NOT_PASSED_ON, ONLY_FOR_OURS, TARGETS
from glimpse.config.trust import RECORD_PACKAGES, is_from
from glimpse.errors import UserError, first_line
from glimpse.text import kind_of, some

NO_FUNCTIONS_OF = ("torch", "lightning")  # torch.hub.load, torch.jit.load and the like


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
    target = str(values["_target_"])
    found = require_target(group, target)
    values = _passed_on(group, target, found, values)
    named = {key: value for key, value in values.items() if key != "_target_"}
    _require_arguments(group, target, found, args, named | kwargs)
    tensors = _tensors(found, named)
    facts = {key: kwargs.pop(key) for key in [*kwargs] if is_dataclass(kwargs[key])}
    values = {key: value for key, value in values.items() if key not in tensors}
    try:
        options = {"_convert_": "all", "_recursive_": False, "_partial_": bool(facts)}
        built = instantiate(values, *args, **options, **tensors, **kwargs)
        built = built(**facts) if facts else built  # Hydra would turn a dataclass into a dict
    except InstantiationException as error:
        cause = error.__cause__ or error
        explanation = _explanation(group, target, values, cause)
        if explanation is not None:
            raise UserError(explanation) from error
        if not isinstance(cause, UserError):
            cause.add_note(f"while building {group} {target}")
        raise cause from None
    if not isinstance(built, _bases(group)):  # a function may return something else than it says
        what = "return it" if built is None else "correct the function or its annotation"
        raise UserError(
            f"{group}._target_={target} returned {kind_of(built)}, expected a {TARGETS[group][0]}: {what}"
        )
    return built


def _passed_on(group: str, target: str, found: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the keys that the run reads itself.

    Raises:
        UserError: the user's own class has an argument of such a name.
    """
    passed = {
        key: value for key, value in values.items() if key not in NOT_PASSED_ON.get(group, ())
    }
    for key in ONLY_FOR_OURS.get(group, ()):
        is_taken = key in parameters_of(found)
        if is_taken and not is_from(target, RECORD_PACKAGES) and passed.get(key) is not None:
            raise UserError(
                f"{group}.{key} is read by the run itself, so {target} would not receive it: rename the "
                f"argument {key} of its __init__, and the key in its YAML file"
            )
        if not (is_taken and target.startswith("glimpse.")):
            passed.pop(key, None)
    return passed


def _explanation(
    group: str, target: str, values: Mapping[str, Any], cause: BaseException
) -> str | None:
    """What the user did wrong if a target could not be built; None for an error in its code."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    rejections = (ValueError, TypeError, MisconfigurationException)
    if isinstance(cause, rejections) and is_from(target, LIBRARIES):
        return f"{group} {target} rejected {blamed(values, cause)}: {first_line(cause)}"
    if isinstance(cause, ModuleNotFoundError):
        stated = re.search(r"'([\w-]+)", str(cause))  # as "Requirement 'wandb>=0.12' not met"
        missing = cause.name or (stated and stated[1])
        what = (
            f"the package {missing}: type pip install {missing}" if missing else first_line(cause)
        )
        return f"{group} {target} needs {what}"
    return None


def blamed(arguments: Mapping[str, Any], error: Exception) -> str:
    """The argument that a library's error message names, or the one whose value it quotes."""
    words = set(re.findall(r"[^\s'\"`,;()\[\]]+", first_line(error)))
    typed = {k: str(v) for k, v in arguments.items() if k != "_target_"}
    named = [k for k in typed if k in words]
    found = named or [k for k, value in typed.items() if value in words]
    return f"{found[0]}={typed[found[0]]}" if len(found) == 1 else "its arguments"


def require_target(group: str, target: str) -> Any:
    """Import a target: a class of the group's base type, or a function annotated to return one.

    Functions of torch and lightning are refused, because some of them load code.

    Raises:
        UserError: the target is something else, or cannot be imported.
    """
    found = _locate(group, target)
    bases = _bases(group)
    built = found
    if inspect.isfunction(found) and not is_from(found.__module__, NO_FUNCTIONS_OF):
        built = _returned(found)
    if not (inspect.isclass(built) and issubclass(built, bases)):
        hint = ""
        if inspect.isfunction(found):
            hint = ", or a function whose return annotation is one"
            if group == "loss":
                hint += "; a function of logits and labels belongs in the forward of a module"
        elif group == "data":
            hint = _why_not_data(found)
        raise UserError(f"{group}._target_={target}: expected a {TARGETS[group][0]}{hint}")
    return found


def _bases(group: str) -> tuple[type, ...]:
    return tuple(_locate(group, path) for path in TARGETS[group])


def _why_not_data(found: Any) -> str:
    """The end of the error message for a class that is not a dataset: how to write one."""
    base = "another class"
    if inspect.isclass(found):
        ours = _locate("data", "lightning.pytorch.LightningDataModule")
        base = "a LightningDataModule" if issubclass(found, ours) else base
    return (
        f", found {base}: derive it from ImageDataModule, return images and labels from read(), and write no "
        "loaders; see docs/extending.md, Write a dataset"
    )


def require_targets(config: DictConfig) -> None:
    """Check the type of every target of a configuration before anything is built.

    Raises:
        UserError: a target is not of its group's base type, or cannot be imported.
    """
    for group, target in targets_of(config):
        require_target(group, target)


def targets_of(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield the group and the `_target_` of every part of a configuration."""
    for group in TARGETS:
        node = config.get(group) or {}
        parts = [node] if "_target_" in node else node.values()
        for part in parts:
            if isinstance(part, Mapping | DictConfig) and "_target_" in part:
                yield group, str(part["_target_"])


def packages_of(config: DictConfig) -> list[str]:
    """The packages of all targets of a configuration; whoever typed it trusts them."""
    return sorted({target.partition(".")[0] for _, target in targets_of(config)})


def own_packages(config: DictConfig) -> list[str]:
    """The user's own packages among them."""
    return [name for name in packages_of(config) if name not in RECORD_PACKAGES]


def require_no_library_function(group: str, target: str, packages: Sequence[str]) -> None:
    """Require a function that a checkpoint names to come from glimpse or from a listed package.

    Raises:
        UserError: it comes from a library.
    """
    found = require_target(group, target)
    if inspect.isfunction(found) and not is_from(found.__module__, ("glimpse", *packages)):
        package = target.partition(".")[0]
        raise UserError(
            f"{group}._target_={target} is a function, and a checkpoint may name only functions of "
            f"glimpse: if you trust it, type --trust {package}"
        )


def accepts(target: Any, name: str) -> bool:
    """Whether a class or function has a parameter of this name, or takes any name."""
    parameters = parameters_of(target)
    return name in parameters or any(
        p.kind == inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a class or function; empty if they are unknown."""
    try:
        return inspect.signature(target).parameters
    except ValueError:  # a class written in C has no signature
        return {}


def _returned(function: Any) -> Any:
    """The return annotation of a function; None if it cannot be evaluated."""
    try:
        return inspect.signature(function, eval_str=True).return_annotation
    except (NameError, AttributeError, SyntaxError):  # a name that only a type checker imports
        return None


def _tensors(target: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of numbers for parameters that are annotated as tensors, such as class weights."""
    found = {}
    for name, parameter in parameters_of(target).items():
        value = values.get(name)
        if isinstance(value, list) and "Tensor" in str(parameter.annotation):
            try:
                found[name] = torch.tensor(value, dtype=torch.float32)
            except (TypeError, ValueError) as error:
                raise UserError(f"{name}={value}: expected a list of numbers") from error
    return found


def _require_arguments(
    group: str,
    target: str,
    found: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    more_follow: bool = False,
) -> None:
    """Raise a UserError, before the call, if the target does not accept these arguments."""
    try:
        signature = inspect.signature(found)
        bind = signature.bind_partial if more_follow else signature.bind
        bind(*args, **kwargs)
    except TypeError as error:
        missing = re.search(r"missing a required .*argument: '(\w+)'", str(error))
        if missing:
            raise UserError(
                f"{group} {target} needs the argument {missing[1]}: add {missing[1]}: <value> to its YAML "
                f"file, conf/{group}/<name>.yaml, or give it a default in its __init__"
            ) from error
        names = [name for name in parameters_of(found) if name not in kwargs][len(args) :]
        takes = f"; it also takes {', '.join(names)}" if names else ""
        raise UserError(
            f"{group} {target} does not accept these arguments: {error}{takes}: correct its YAML file, or "
            "the arguments of its __init__"
        ) from error
    except ValueError:  # a class written in C has no signature
        return


def require_known_arguments(group: str, node: Mapping[str, Any]) -> None:
    """Require a target to accept the arguments of its configuration, without building it.

    Raises:
        UserError: it does not.
    """
    target = str(node["_target_"])
    given = {key: value for key, value in node.items() if key != "_target_"}
    _require_arguments(group, target, require_target(group, target), (), given, more_follow=True)


def _locate(group: str, target: str) -> Any:
    """Import the module of a target and return the target.

    A package that is neither installed nor on PYTHONPATH is looked for in the current folder.

    Raises:
        UserError: there is no such package, module or name.
    """
    module, _, name = target.rpartition(".")
    package = module.partition(".")[0]
    if module not in sys.modules:
        importlib.invalidate_caches()  # a notebook may have written the module a moment ago
        if not is_installed(package) and is_here(package):
            sys.path.append(str(Path.cwd()))
    what = f"{group}._target_={target}"
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(f"{what}: {_no_module(error.name)}") from error
        needs = f"; type pip install {error.name}" if error.name and "." not in error.name else ""
        raise UserError(f"{what}: {module} cannot be imported: {error}{needs}") from error
    except ImportError as error:
        raise UserError(f"{what}: {module} cannot be imported: {error}") from error
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise UserError(f"{what}: {module} cannot be imported: {place}: {error.msg}") from error
    except SystemExit as error:
        raise UserError(
            f"{what}: {module} cannot be imported: it is a program that exits ({error.code}); put its "
            'main code under if __name__ == "__main__":'
        ) from error
    if not hasattr(imported, name):
        raise UserError(f"{what}: {module} has no {name}{_hint(imported, name)}")
    return getattr(imported, name)


def _hint(module: ModuleType, name: str) -> str:
    """Suggest what to type for a name that a module does not have."""
    near = difflib.get_close_matches(name, dir(module), n=1)
    if near:
        return f": did you mean {near[0]}?"
    package = module.__name__.partition(".")[0]
    if own := _shadowed(package):
        return f": {own}"
    inner = sorted(m.name for m in pkgutil.iter_modules(getattr(module, "__path__", None) or ()))
    if not inner or is_from(package, RECORD_PACKAGES):
        return ""
    return f"; its modules are {some(inner)}"


def _shadowed(package: str) -> str | None:
    """A message if another package hides the one in the current folder; None if none does."""
    place = getattr(sys.modules.get(package), "__file__", None)
    if place is None or not is_here(package) or Path.cwd() in Path(place).parents:
        return None
    return (
        f"Python finds {package} in {Path(place).parent} before yours in {Path.cwd()}; rename yours"
    )


def _inner_folder(package: str) -> str:
    """What to type if the folder found as a package is the project that contains the package."""
    places = getattr(sys.modules.get(package), "__path__", ())
    project = next((Path(place) for place in places if (Path(place) / package).is_dir()), None)
    if project is None:
        return ""
    typed = in_shell(os.path.relpath(project))
    change = f"cd {typed}, or " if typed != "." else ""
    return f": type {change}PYTHONPATH={typed} before the command"


def _no_module(name: str) -> str:
    """The error message for a module that does not exist."""
    parent, _, last = name.rpartition(".")
    if parent and (own := _shadowed(name.partition(".")[0])):
        return f"there is no module {name}: {own}"
    if parent:
        places = list(getattr(sys.modules.get(parent), "__path__", ()))
        near = difflib.get_close_matches(last, [m.name for m in pkgutil.iter_modules(places)], n=1)
        if near:
            return f"there is no module {name}: did you mean {parent}.{near[0]}?"
        return f"there is no module {name}{_inner_folder(name.partition('.')[0])}"
    return no_package(name)


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain dicts, lists, strings and numbers, as in checkpoints."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
