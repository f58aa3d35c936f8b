"""glimpse: image-classification experiments, any model on any dataset from one command.

`from glimpse import train, load` trains and loads from Python. Importing the package imports
nothing heavy; both functions are imported on first use.
"""

from typing import TYPE_CHECKING, Any

from glimpse import lean_imports

if TYPE_CHECKING:
    from glimpse.scripting import load, train

lean_imports.install()

__version__ = "0.1.0"
__all__ = ["load", "train"]


def __getattr__(name: str) -> Any:
    """Import `train` and `load` on first use, because Hydra and torch take seconds."""
    if name in __all__:
        from glimpse import scripting

        return getattr(scripting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
