"""Find the package of a class that a configuration names, without importing it."""

import difflib
import importlib.util
import pkgutil
from pathlib import Path

from glimpse.config.trust import RECORD_PACKAGES
from glimpse.errors import UserError


def require_package(key: str, target: str) -> None:
    """Require the package of a `_target_` to be installed, on PYTHONPATH, or in the current folder.

    Raises:
        UserError: the package is not found.
    """
    package = target.partition(".")[0]
    if package not in RECORD_PACKAGES and not is_installed(package) and not is_here(package):
        raise UserError(f"{key}={target}: {no_package(package)}")


def is_installed(package: str) -> bool:
    """Whether Python finds a package of this name."""
    importlib.invalidate_caches()  # a notebook may have written it a moment ago
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # the package was imported in an unusual way
        return True


def is_here(package: str) -> bool:
    """Whether a package or a module of this name is in the current folder."""
    here = Path.cwd()
    return package.isidentifier() and (
        (here / package).is_dir() or (here / f"{package}.py").is_file()
    )


def no_package(name: str) -> str:
    """An error message for a package that does not exist."""
    here = [module.name for module in pkgutil.iter_modules([str(Path.cwd())])]
    near = difflib.get_close_matches(name, here, n=1, cutoff=0.75)
    if near:
        return f"there is no package {name}: did you mean {near[0]}?"
    folder = "src" if (Path("src") / name).is_dir() else f"<the folder that contains {name}>"
    return f"there is no package {name}; type PYTHONPATH={folder} before the command, or pip install it"
