"""Import Lightning, torchvision and scikit-learn without modules that a run does not use.

Each entry of `DEFERRED` names a module of a library, and the modules that it imports at its top but
uses in only a few functions. While the module is imported, stand-ins replace them; a stand-in
imports the real module when it is first used. Any other import gets the real module. Together, the
deferred modules take a third of the time of all imports:

- torchmetrics 1.9 imports scipy.signal only to add an old name of one window to it.
- torchvision 0.29 imports torch._dynamo, the compiler, for one check in `roi_align`.
- Lightning 2.6 imports it to distinguish compiled modules from others.
- scikit-learn 1.9 imports parts of SciPy for some metrics and estimators, and pandas, if it is
  installed, without using it.
- torch 2.14 imports triton, if it is installed, to count the operations of its kernels.

torch 2.14 itself imports torch._dynamo when an optimizer is built, to exclude the methods in
`SPARED` from compilation, and in every step. As long as nothing has imported it, there is nothing
to exclude.

tests/test_lean_imports.py fails when an entry is no longer needed.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Importing module: the modules that it imports needlessly, and the names in its `from … import`.
DEFERRED: dict[str, dict[str, tuple[str, ...]]] = {
    "torchmetrics": {"scipy.signal": ("hamming",)},
    "torchvision.ops.roi_align": {
        "torch._dynamo": (),
        "torch._dynamo.utils": ("is_compile_supported",),
    },
    "lightning.fabric.wrappers": {"torch._dynamo": ("OptimizedModule",)},
    "lightning.pytorch.utilities.compile": {"torch._dynamo": ("OptimizedModule",)},
    "lightning.pytorch.trainer.connectors.logger_connector.result": {"torch._dynamo": ("disable",)},
    "sklearn.utils.fixes": {"pandas": (), "scipy.stats": ()},
    "sklearn.metrics._ranking": {"scipy.integrate": ("trapezoid",), "scipy.stats": ("rankdata",)},
    "sklearn.metrics.cluster._bicluster": {"scipy.optimize": ("linear_sum_assignment",)},
    "sklearn.model_selection._search": {"scipy.stats": ("rankdata",)},
    "sklearn.preprocessing._data": {"scipy.stats": ()},
    "sklearn.preprocessing._polynomial": {"scipy.interpolate": ("BSpline",)},
    "torch.utils.flop_counter": {"triton.runtime.jit": ("JITFunction",)},
}
DYNAMO = "torch._dynamo"
FORBIDDEN = "__dynamo_disable"
SPARED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")  # of every optimizer


def _until_compiler(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function to exclude it from compilation once the compiler has been imported."""
    forbidden: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal forbidden
        if forbidden is None:
            if DYNAMO not in sys.modules:
                return function(*arguments, **named)
            forbidden = importlib.import_module(DYNAMO).disable(function, wrapping=False)
        return forbidden(*arguments, **named)

    return call


class _Name(type):
    """The metaclass of a class or function that is imported when it is called.

    Nothing is an instance of a class whose module nobody has imported.
    """

    home: str

    def _found(cls) -> Any:
        return getattr(importlib.import_module(cls.home), cls.__name__)

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        return cls._found()(*arguments, **named)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._found(), name)

    def __instancecheck__(cls, instance: object) -> bool:
        home = sys.modules.get(cls.home)
        is_there = home is not None and not isinstance(home, _StandIn)
        return is_there and isinstance(instance, getattr(home, cls.__name__))


class _StandIn(ModuleType):
    """A module that knows some names, and imports the real module for all others."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(name)
        for found in names:
            setattr(self, found, _Name(found, (), {"home": name}))
        if "disable" in names:  # of the compiler, a decorator
            self.disable = lambda function, *_, **__: _until_compiler(function)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def standing_in(deferred: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Replace these modules by stand-ins inside the block, unless they are already imported."""
    placed = {
        name: _StandIn(name, names)
        for name, names in deferred.items()
        if name not in sys.modules and _exists(name)
    }
    sys.modules |= placed
    try:
        yield
    finally:
        for name, stand_in in placed.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
            parent, _, own = name.rpartition(".")
            if vars(sys.modules.get(parent, stand_in)).get(own) is stand_in:
                delattr(sys.modules[parent], own)


def _exists(name: str) -> bool:
    """Whether a module's library is installed; importing the module may still fail."""
    return importlib.util.find_spec(name.partition(".")[0]) is not None


class _Loader(Loader):
    """Load a module while stand-ins are in place."""

    def __init__(self, loader: Loader, deferred: Mapping[str, Sequence[str]]) -> None:
        self._loader = loader
        self._deferred = deferred

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with standing_in(self._deferred):
            self._loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:  # such as the module's source, for tracebacks
        return getattr(self._loader, name)


class _Finder(MetaPathFinder):
    """Intercept the first import of each module in `DEFERRED`."""

    def __init__(self) -> None:
        self._waiting = set(DEFERRED) - set(sys.modules)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._waiting:
            return None
        self._waiting.remove(fullname)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, DEFERRED[fullname])
        return spec


def install() -> None:
    """Use stand-ins in all imports from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def make_optimizers_without_compiler() -> None:
    """Keep torch's optimizers from being the first to import the compiler.

    torch stores the uncompiled form of a method in an attribute of the method. Until the compiler
    has been imported, this sets the attribute to the method itself. The steps of the optimizers are
    wrapped likewise.
    """
    optim = importlib.import_module("torch.optim")
    for name in SPARED:
        method = getattr(getattr(optim.Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, FORBIDDEN):
            setattr(method, FORBIDDEN, _until_compiler(method))
    for kind in vars(optim).values():
        step = vars(kind).get("step") if isinstance(kind, type) else None
        if step is not None and step.__code__.co_name == "_use_grad":  # not replaced yet
            kind.step = _stepping(step)


def _stepping(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an optimizer's step, so that it interrupts a compilation only if there may be one."""
    set_grad_enabled = importlib.import_module("torch").set_grad_enabled
    inner: Callable[..., Any] = step.__wrapped__  # type: ignore[attr-defined]

    @functools.wraps(inner)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if DYNAMO in sys.modules:
            return step(self, *arguments, **named)
        with set_grad_enabled(self.defaults["differentiable"]):
            return inner(self, *arguments, **named)

    return call
