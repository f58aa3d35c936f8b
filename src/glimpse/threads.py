"""How torch's threads wait, decided before torch is imported."""

import os


def wait_passively() -> None:
    """Let threads sleep at barriers in place of spinning, unless the user has said otherwise.

    OpenMP's threads spin while they wait for each other. Beside other programs they spin on time that
    the thread they wait for would need, and a small network on a busy machine collapses. OpenMP reads
    the variable when torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
