"""Keep the garbage collector from objects that live as long as the process.

The imports of a run make half a million objects and no garbage. Searching them costs half a second
while they are imported, and nearly a second when Python ends.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection(module: str) -> Iterator[None]:
    """Suspend collection while the block imports a module for the first time.

    Afterwards, the collector ignores every object that exists by then. Python does not delete those, even
    when it ends, so the block may only import libraries: a file that such an object holds open might lose
    its last lines.
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
