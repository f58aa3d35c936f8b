"""Replace a function of Hydra or of another library for as long as a context lasts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal import config_loader_impl

LOADER: Any = config_loader_impl  # the module where Hydra calls `create_defaults_list`


@contextmanager
def replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a function of a module or a method of a class inside this context."""
    before = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, before)
