"""Collect a value from each process of a run, or their sum or minimum."""

from typing import Any, TypeVar

import torch.distributed
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

_Value = TypeVar("_Value")


def of_all_processes(value: _Value) -> list[_Value]:
    """The value of every process, by rank, with its tensors on the CPU.

    All processes must call this together.
    """
    if not torch.distributed.is_initialized():
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, move_data_to_device(value, "cpu"))
    return found


def summed(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all processes, which must call this together.

    A GPU does not wait. `Strategy.reduce` of Lightning first waits for all processes.
    """
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor


def lowest(tensor: Tensor) -> Tensor:
    """Replace a tensor by its minimum over all processes, which must call this together."""
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MIN)
    return tensor
