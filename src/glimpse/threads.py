"""How many cores a run may use, and how torch's threads wait for each other; torch is not imported."""

import os

# How many jobs of a sweep share this machine; the sweep sets it for their processes.
JOBS_AT_ONCE = "GLIMPSE_JOBS_AT_ONCE"

SPINS = "10000"  # GNU OpenMP's own default is 300,000


def spin_briefly() -> None:
    """Let threads spin only briefly at barriers before they sleep, unless the user has said otherwise.

    OpenMP's threads spin while they wait for each other. Beside other programs they use up the time
    that the thread they wait for needs, and a small network can slow down many times over. Sleeping at
    once (OMP_WAIT_POLICY=passive) costs a small convnet a fifth of its speed on an idle machine; a short
    spin costs it about a twentieth. OpenMP reads the variable when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def num_cores() -> int:
    """The number of cores for this run: those that the process may use, divided among the jobs at once."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get(JOBS_AT_ONCE, "1")))
