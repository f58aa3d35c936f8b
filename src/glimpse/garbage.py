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
    """Collect nothing while the block imports a module for the first time, and leave out all objects then.

    Only for imports of libraries: Python does not delete what is left out, even when it ends. A file that
    hangs on it would not be written to its end.
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
