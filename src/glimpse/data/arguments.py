"""The arguments of a dataset's own constructor, as text that is the same in every process.

The text is part of the cache key, so that a dataset need not declare which of its arguments affect
what it reads: all arguments that are not common to every dataset count. Different values give
different texts. If equal data gives two texts, the only cost is a second cache.
"""

import contextlib
import copyreg
import functools
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from glimpse.config.trust import is_from

DEEPEST = 30  # levels of nested objects; an object that refers to itself never ends


def readers(cls: type, base: type) -> list[tuple[object, ...]]:
    """Return module, name and declared `version` of `cls` and of the classes up to `base`.

    The classes of a user come with a hash of their file: nobody declares a version after an edit.
    """
    between = [c for c in cls.__mro__ if issubclass(c, base)]
    of_users = [c for c in between if not is_from(c.__module__, ("glimpse",))]
    described = [(c.__module__, c.__qualname__, vars(c).get("version")) for c in between]
    return [*described, *((_code_of(c),) for c in of_users)]


def _code_of(cls: type) -> str:
    """A hash of the file of a class; of its own functions if it is in a script or a notebook."""
    if cls.__module__ != "__main__":
        with contextlib.suppress(OSError, TypeError):  # there is no file
            return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    functions = [one for one in vars(cls).values() if isinstance(one, FunctionType)]
    return hashlib.sha256(described(functions, str).encode()).hexdigest()


def own_arguments(
    cls: type, base: type, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of `cls(*args, **kwargs)` that the constructor of `base` does not have.

    The result is by name and includes the defaults of every class between `cls` and `base`.
    """
    derived = cls.__mro__[: cls.__mro__.index(base)]
    found: dict[str, Any] = {}
    for between in reversed(derived):
        if "__init__" in vars(between):
            parameters = inspect.signature(vars(between)["__init__"]).parameters.values()
            found |= {p.name: p.default for p in parameters if p.default is not p.empty}
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    try:
        given = signature.bind_partial(None, *args, **kwargs).arguments
    except TypeError:  # the constructor's own error is clearer
        return {}
    own_self = next(iter(signature.parameters))
    for name, value in given.items():
        if signature.parameters[name].kind == inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif name != own_self:
            found[name] = value
    common = inspect.signature(base.__init__).parameters  # type: ignore[misc]
    return {name: value for name, value in found.items() if name not in common}


def described(value: object, place: Callable[[str], str], depth: int = 0) -> str:
    """Describe a value as text, by its content.

    Args:
        value: Any value; a list and a tuple with the same items give the same text.
        place: Maps text that may be a path to the text that represents it.
        depth: Nesting level of the value.
    """
    if isinstance(value, str | Path):
        return repr(place(str(value)))
    if value is None or isinstance(value, bool | int | float | complex | bytes | range):
        return repr(value)
    if depth > DEEPEST:
        return type(value).__qualname__
    inner = functools.partial(described, place=place, depth=depth + 1)
    if isinstance(value, Mapping):
        pairs = sorted(f"{inner(key)}: {inner(value[key])}" for key in value)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, AbstractSet):
        return f"set({', '.join(sorted(map(inner, value)))})"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(inner, value))}]"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {inner(value.co_consts)} {inner(value.co_names)}"
    if isinstance(value, FunctionType):
        around = [cell.cell_contents for cell in value.__closure__ or ()]
        says = (value.__code__, value.__defaults__, value.__kwdefaults__, around)
        return f"{value.__module__}.{value.__qualname__} {inner(says)}"
    try:
        reduce = copyreg.dispatch_table.get(type(value))  # for example of a regular expression
        reduced = reduce(value) if reduce else value.__reduce_ex__(4)  # as it would be pickled
    except Exception:  # objects that cannot be pickled raise errors of any type
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    if isinstance(reduced, str):
        return f"{getattr(value, '__module__', '')}.{reduced}"
    parts = [list(part) if hasattr(part, "__next__") else part for part in reduced]
    return inner(parts)


def without_place(text: str, folder: str, data_dir: Path) -> str:
    """Make a path of the dataset relative to `folder` or `data_dir`; leave any other text
    unchanged.

    The text therefore stays the same if these folders move.
    """
    if not (os.path.isabs(text) or os.path.exists(text)):
        return text
    path, base, data = (os.path.abspath(p) for p in (text, folder or os.curdir, str(data_dir)))
    if _is_within(path, base) or _is_within(base, path):
        return os.path.relpath(path, base)
    return os.path.relpath(path, data) if _is_within(path, data) else text


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
