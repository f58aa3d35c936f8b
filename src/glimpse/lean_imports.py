"""Import torchmetrics without scipy.signal, which takes a fifth of the time of all imports.

Lightning imports all of torchmetrics, which imports scipy.signal only to add to it an old name for one window.
Meanwhile an empty module stands in for it; afterwards, whoever wants scipy.signal gets the real one.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

METRICS, SIGNAL = "torchmetrics", "scipy.signal"


class _WithoutSignal(Loader):
    """Load a module while an empty one stands in for scipy.signal."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import scipy

        stand_in = ModuleType(SIGNAL)
        stand_in.hamming = None  # type: ignore[attr-defined]  # the name that torchmetrics looks for
        sys.modules[SIGNAL] = scipy.signal = stand_in
        try:
            self._loader.exec_module(module)
        finally:
            del sys.modules[SIGNAL], scipy.signal


class _Finder(MetaPathFinder):
    """Find torchmetrics, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != METRICS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None or SIGNAL in sys.modules:
            return spec
        spec.loader = _WithoutSignal(spec.loader)
        return spec


def install() -> None:
    """Do so for the imports to come."""
    if METRICS not in sys.modules:
        sys.meta_path.insert(0, _Finder())
