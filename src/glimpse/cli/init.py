"""`glimpse init`: write a small project with its own network and dataset.

Its files are in template/, where the project is called `my_project`.
"""

import importlib.util
import keyword
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from glimpse.cli.errors import one_line_errors
from glimpse.errors import UserError
from glimpse.files import make_folder, write_text

TEMPLATE = Path(__file__).parents[1] / "template"
NAME = "my_project"  # of the project in the template
TAKEN = ("conf", "data", "outputs", "tests", "train")  # by the project's own folders and files
RENAMED = {"gitignore": ".gitignore"}  # git would apply a .gitignore in the template


def init(
    folder: Annotated[Path, typer.Argument(help="a new folder, which also names the package")],
) -> None:
    """Write a project: conf/ with a network and a dataset, a package, train.py, tests, a Makefile.

    Example: glimpse init my_project && cd my_project && make test
    """
    with one_line_errors():
        name = folder.resolve().name.replace("-", "_")
        _require_free_name(folder, name)
        for place in (folder, *folder.parents):
            if os.path.lexists(place) and not place.is_dir():
                raise UserError(
                    f"{place} is a file, expected a folder: type the name of a new folder"
                )
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty: type the name of a new folder")
        for file in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
            place = file.relative_to(TEMPLATE)
            if "__pycache__" in place.parts:
                continue
            parts = [name if part == NAME else RENAMED.get(part, part) for part in place.parts]
            written = folder.joinpath(*parts)
            make_folder(written.parent)
            write_text(written, file.read_text(encoding="utf-8").replace(NAME, name))
        print(f"written: {folder}\ntype: cd {folder} && make test")


def _require_free_name(folder: Path, name: str) -> None:
    """Require a name that Python can import and that is not in use.

    Raises:
        UserError: Python cannot import the name, or it is in use.
    """
    words = re.sub(r"\W+", "_", name).strip("_") or NAME
    if not name.isidentifier() or keyword.iskeyword(name):
        wrong = "is not a valid name for a Python package"
    elif name in TAKEN:
        wrong = "is the name of another folder or file in a project"
    elif _is_installed(name):
        wrong = "is the name of an installed package"
    else:
        return
    usable = words.isidentifier() and not keyword.iskeyword(words)
    other = words if usable and words != name else f"my_{words}"
    place = shlex.quote(str(folder.parent / other))
    raise UserError(f"{folder}: {name} {wrong}: type glimpse init {place}")


def _is_installed(name: str) -> bool:
    """Whether another package has this name. A folder in the current one does not count."""
    if name in sys.stdlib_module_names or name == "glimpse":
        return True
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return False
    return Path.cwd() not in list(Path(found.origin).parents)[:2]  # of a module, and of a package
