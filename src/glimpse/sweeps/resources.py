"""Divide the machine among the jobs that run at the same time: cores, and GPUs by slot.

Source for GPUs: CUDA_VISIBLE_DEVICES, which CUDA reads when a process first uses it. Left out:
memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omegaconf import DictConfig

from glimpse.distributed.place import num_devices, takes_one_device
from glimpse.threads import JOBS_AT_ONCE, THREADS, num_cores

GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Slot:
    """A place where one job at a time runs.

    Attributes:
        number: Its number, from 0.
        num_slots: The number of jobs that run at once.
    """

    number: int
    num_slots: int

    def settle(self) -> None:
        """Take this slot's share of the machine for the calling process and its children."""
        if self.num_slots == 1:
            return
        os.environ[JOBS_AT_ONCE] = str(self.num_slots)  # it limits the number of data workers
        import torch

        gpus = os.environ.get(GPUS)
        visible = gpus.split(",") if gpus else [str(i) for i in range(torch.cuda.device_count())]
        if visible:
            os.environ[GPUS] = ",".join(self.share_of(visible))

    def share_of(self, gpus: list[str]) -> list[str]:
        """This slot's GPUs: adjacent ones, equally many per slot; shared if there are too few."""
        size = max(1, len(gpus) // self.num_slots)
        start = self.number * size % len(gpus)
        return gpus[start : start + size]

    @contextmanager
    def shared(self, config: DictConfig) -> Iterator[bool]:
        """Give a job its share of the cores. Yields whether the job may start other processes.

        Threads are cores ÷ (jobs × processes of a job), unless OMP_NUM_THREADS is set. If jobs run
        one at a time, each gets the same share as a single run.
        """
        import torch

        num_processes = num_processes_of(config, torch.cuda.device_count())
        if self.num_slots > 1 and THREADS not in os.environ:
            threads = max(1, num_cores() // num_processes)
            torch.set_num_threads(threads)
            if num_processes > 1:
                os.environ[THREADS] = str(threads)  # for the job's other processes
        yield num_processes > 1 or not str(config.trainer.strategy).startswith(("auto", "single"))


def num_processes_of(config: DictConfig, num_gpus: int) -> int:
    """The number of processes of a job on this machine, according to its configuration."""
    if takes_one_device(config.trainer):
        return 1
    on_gpus = config.trainer.accelerator in ("auto", "gpu", "cuda")
    asked = num_devices(config.trainer.devices)
    return max(1, num_gpus if asked is None and on_gpus else asked or 1)
