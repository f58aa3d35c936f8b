"""What would make a program wait for a GPU, noticed on a CPU.

`on_a_cpu` stands for `torch.cuda.set_sync_debug_mode("error")` where there is no GPU. It does not know what
CUDA's own kernels do; the gpu tests do. What data/transfer.py does is left to these.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Python's ways to a tensor's numbers, or from numbers to a tensor on a device.
CALLS = {
    *(Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.nonzero, Tensor.__bool__),
    *(Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__contains__, Tensor.new_tensor),
    *(torch.tensor, torch.as_tensor, torch.asarray, torch.nonzero, torch.bincount, torch.equal),
    *(torch.allclose, torch.masked_select, torch.unique, torch.argwhere),
}
# Those of any code, C++ included.
OPERATORS = (
    "aten::_local_scalar_dense", "aten::nonzero", "aten::nonzero_numpy", "aten::masked_select",
    "aten::is_nonzero", "aten::equal", "aten::bincount", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::repeat_interleave",
)  # fmt: skip
MASKS = (torch.bool, torch.uint8)
# A CPU's form of these looks at values; CUDA's does not.
ALLOWED = (F.one_hot, F.grid_sample)
# The first copies as a part of the queue; the second from a device to itself.
ALLOWED_FILES = ("glimpse/data/transfer.py", "torch/nn/utils/clip_grad.py")


class WaitingError(AssertionError):
    """A GPU's queue would have been emptied here."""


class _Calls(TorchFunctionMode):
    def __init__(self, guard: "_Guard") -> None:
        self.guard = guard

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        is_moved = func is Tensor.to and any(
            isinstance(value, torch.device | str) for value in given
        )
        if func in CALLS or is_moved:
            self.guard.refuse(getattr(func, "__name__", func), args)
        if func in ALLOWED:
            with self.guard.looking_away():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, guard: "_Guard") -> None:
        super().__init__()
        self.guard = guard

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        masked = name.startswith("aten::index") and any(
            index is not None and index.dtype in MASKS
            for index in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if name in OPERATORS or masked:
            self.guard.refuse(name, args)
        return func(*args, **(kwargs or {}))


class _Guard:
    """Args: is_on_host: whether a tensor lies on the CPU even where the training does not."""

    def __init__(self, is_on_host: Callable[[Any], bool]) -> None:
        self.is_on_host = is_on_host
        self.looks_away = False

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        before, self.looks_away = self.looks_away, True
        yield
        self.looks_away = before

    def refuse(self, what: object, args: Any) -> None:
        if self.looks_away or (args and self.is_on_host(args[0])) or _is_called_by_those():
            return
        self.looks_away = True  # what follows the error may wait
        raise WaitingError(f"{what} makes a GPU wait")


def _is_called_by_those() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.endswith(ALLOWED_FILES):
            return True
        frame = frame.f_back
    return False


@contextmanager
def on_a_cpu(is_on_host: Callable[[Any], bool] = lambda _: False) -> Iterator[None]:
    """Inside, whatever would make the program wait for a GPU raises `WaitingError`."""
    guard = _Guard(is_on_host)
    with ExitStack() as stack:
        stack.enter_context(_Calls(guard))
        stack.enter_context(_Operators(guard))
        yield


@contextmanager
def on_a_gpu() -> Iterator[None]:
    """Inside, whatever makes the program wait for a GPU raises a RuntimeError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
