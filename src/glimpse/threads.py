"""How torch's threads wait for each other, decided before torch is imported."""

import os

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
