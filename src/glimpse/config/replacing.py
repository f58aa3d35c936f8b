"""Replace functions of Hydra or of another library for as long as a context lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal import config_loader_impl

LOADER: Any = config_loader_impl  # the module where Hydra calls `create_defaults_list`

Change = tuple[
    Any, str, Callable[..., Any]
]  # a module or class, a name in it, what takes its place


@contextmanager
def replaced(*changes: Change) -> Iterator[None]:
    """Replace functions of modules and methods of classes inside this context."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, function in changes:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
