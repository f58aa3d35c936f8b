"""Collect a value from each process of a run."""

from typing import Any, TypeVar

import torch.distributed

_Value = TypeVar("_Value")


def of_all_processes(value: _Value) -> list[_Value]:
    """The value of every process, by rank. All processes must call this together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found
