"""Divide the machine among the jobs that run at the same time: cores, and GPUs by slot.

Source for GPUs: CUDA_VISIBLE_DEVICES, which CUDA reads when a process first uses it. Left out: memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omegaconf import DictConfig, ListConfig

from glimpse.threads import JOBS_AT_ONCE, num_cores

THREADS = "OMP_NUM_THREADS"
GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Slot:
    """A place where one job at a time runs.

    Attributes:
        number: Which one, from 0.
        num_slots: How many jobs run at once.
    """

    number: int
    num_slots: int

    def settle(self) -> None:
        """Take this slot's share of the machine for the calling process and those that it starts."""
        if self.num_slots == 1:
            return
        os.environ[JOBS_AT_ONCE] = str(self.num_slots)  # data workers are counted by it
        import torch

        gpus = os.environ.get(GPUS)
        visible = gpus.split(",") if gpus else [str(i) for i in range(torch.cuda.device_count())]
        if visible:
            os.environ[GPUS] = ",".join(self.share_of(visible))

    def share_of(self, gpus: list[str]) -> list[str]:
        """This slot's GPUs: neighbours, the same number for each slot; shared if there are too few."""
        size = max(1, len(gpus) // self.num_slots)
        start = self.number * size % len(gpus)
        return gpus[start : start + size]

    @contextmanager
    def shared(self, config: DictConfig) -> Iterator[bool]:
        """Give a job its share of the cores; yields whether it may start processes of its own.

        Threads are cores ÷ (jobs × processes of a job), unless OMP_NUM_THREADS is set. One job at a time
        gets what a single run gets.
        """
        import torch

        num_processes = num_processes_of(config, torch.cuda.device_count())
        if self.num_slots > 1 and THREADS not in os.environ:
            threads = max(1, num_cores() // num_processes)
            torch.set_num_threads(threads)
            if num_processes > 1:
                os.environ[THREADS] = str(threads)  # the others take it from there
        yield num_processes > 1 or not str(config.trainer.strategy).startswith(("auto", "single"))


def num_processes_of(config: DictConfig, num_gpus: int) -> int:
    """How many processes a job has on this machine, as far as its configuration tells."""
    devices = config.trainer.devices
    if isinstance(devices, ListConfig):
        return len(devices)
    if str(devices).isdigit():
        return max(1, int(devices))
    on_gpus = config.trainer.accelerator in ("auto", "gpu", "cuda")
    return max(1, num_gpus) if on_gpus else 1  # auto, or -1: all that there are
