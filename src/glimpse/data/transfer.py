"""Small tensors on their way to a device, between the steps of a training."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to a device.

    The copy goes through pinned memory, so a GPU only queues it. From other memory, the program
    would wait for all steps before it.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
