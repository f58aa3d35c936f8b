"""Copy small tensors between the CPU and a device without stalling the training.

A GPU works through a queue of steps, which the program only has to keep filled. To read a number
from the GPU, or to copy one there from ordinary memory, the program has to wait until the queue is
empty. The GPU then waits for the program.
"""

import torch
from torch import Tensor


def is_queued(device: torch.device) -> bool:
    """Whether a device works through a queue, so that the program waits to read a number."""
    return device.type != "cpu"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device. A copy to a GPU uses pinned memory and only joins the queue."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Arriving:
    """A copy of a tensor to the CPU that starts now; reading it waits until it is done.

    Args:
        values: (N,), on any device. Later changes do not affect the copy.
    """

    def __init__(self, values: Tensor) -> None:
        self._has_arrived: torch.cuda.Event | None = None
        if values.device.type != "cuda":
            self._here = values.to("cpu", copy=True)
            return
        self._here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._here.copy_(values, non_blocking=True)
        self._has_arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._has_arrived.record()

    def read(self) -> list[float]:
        """Return the values."""
        if self._has_arrived is not None:
            self._has_arrived.synchronize()
        found: list[float] = self._here.tolist()
        return found
