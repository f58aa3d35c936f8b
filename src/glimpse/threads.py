"""The numbers of cores and threads of a run, and how threads wait. Nothing heavy is imported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

THREADS = "OMP_NUM_THREADS"
# How many jobs of a sweep share this machine; the sweep sets it for their processes.
JOBS_AT_ONCE = "GLIMPSE_JOBS_AT_ONCE"

SPINS = "100000"  # GNU OpenMP's own default is 300,000

MAX_PIXELS = 8192  # of a batch that one thread trains on
MAX_PARAMETERS = 1_000_000


def spin_briefly() -> None:
    """Make threads spin more briefly at barriers before they sleep, unless the user has set this.

    OpenMP's threads spin while they wait for each other. On a busy machine, they use up the time
    that the thread they wait for needs. A shorter spin costs nothing on an idle machine. A spin
    that is short enough to help much on a busy machine costs a convnet a third of its speed on an
    idle one. OpenMP reads the variable when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def num_cores() -> int:
    """The number of cores for this run: the cores of the process, divided by the jobs at once."""
    return max(1, _cores_of_process() // int(os.environ.get(JOBS_AT_ONCE, "1")))


def cores_of_each(num_processes: int) -> int:
    """The number of cores for each of this machine's processes of a run.

    srun may have bound this process to cores of its own, which need not be divided again.
    """
    is_bound = _cores_of_process() < int(os.environ.get("SLURM_CPUS_ON_NODE", "0"))
    return num_cores() if is_bound else max(1, num_cores() // num_processes)


def _cores_of_process() -> int:
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def use_one_thread_if_small(num_pixels: int, num_parameters: int) -> bool:
    """Use one thread for small work, unless OMP_NUM_THREADS is set; returns whether it does.

    Several threads gain little on small work, and lose much when other programs run on the same
    cores: every layer ends in a barrier, where the threads wait for one that the system has
    suspended.

    Args:
        num_pixels: Pixels of a batch: batch size × height × width.
        num_parameters: Parameters of the network.
    """
    import torch

    if num_pixels > MAX_PIXELS or num_parameters > MAX_PARAMETERS:
        return False
    if THREADS in os.environ or torch.get_num_threads() == 1:
        return False
    torch.set_num_threads(1)
    return True


@contextmanager
def threads_restored() -> Iterator[None]:
    """Restore torch's number of threads after the block."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
