"""Exclude objects that live as long as the process from garbage collection.

The imports of a run create half a million objects and no garbage. Searching them costs half a
second during the imports, and nearly a second when Python ends.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection(module: str) -> Iterator[None]:
    """Suspend collection while the block imports a module for the first time.

    Afterwards, the collector ignores every object that exists by then. Python does not delete these
    objects, even when it ends. The block may therefore only import libraries: a file that such an
    object holds open might lose its last lines.
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
