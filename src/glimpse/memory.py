"""Memory of the process: keep freed blocks for the next step, and skip needless garbage collection."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameter numbers of mallopt, from glibc's malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc refuses more


def keep_freed_memory() -> None:
    """Allocate blocks of up to 32 MiB on the heap, and never shrink the heap (glibc only).

    A training step frees the memory it used. glibc returns large blocks to the system, which clears
    them page by page when the next step requests them. This takes a tenth of the step time of a
    small convnet.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # musl has no mallopt
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)  # type: ignore[union-attr]
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # type: ignore[union-attr]


@contextmanager
def without_collection(module: str) -> Iterator[None]:
    """Suspend collection while the block imports a module for the first time.

    The imports of a run create half a million objects and no garbage. Searching them costs half a
    second during the imports, and nearly a second when Python ends. Afterwards, the collector
    ignores every object that exists by then. Python does not delete these objects, even when it
    ends. The block may therefore only import libraries: a file that such an object holds open might
    lose its last lines.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
