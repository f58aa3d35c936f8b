"""Keep freed memory for the next step (glibc only; elsewhere nothing is done).

A training step frees what it used. glibc hands large blocks back to the system, which clears them page
by page when the next step asks for them: a tenth of a small convnet's step.
"""

import ctypes
import sys

# mallopt's numbers, from glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc refuses more


def keep_freed_memory() -> None:
    """Serve blocks of up to 32 MB from the heap, and do not shrink the heap."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)  # type: ignore[union-attr]
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # type: ignore[union-attr]
