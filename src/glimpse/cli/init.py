"""`glimpse init`: write a small project with a network and a dataset of its own.

Its files are in template/, where the project is called `my_project`.
"""

from pathlib import Path
from typing import Annotated

import typer

from glimpse.cli.errors import one_line_errors
from glimpse.errors import UserError
from glimpse.files import write_text

TEMPLATE = Path(__file__).parents[1] / "template"
NAME = "my_project"  # of the project in the template
RENAMED = {"gitignore": ".gitignore"}  # which git would obey in the template


def init(
    folder: Annotated[Path, typer.Argument(help="a new folder; its name becomes the package's")],
) -> None:
    """Write a project: conf/ with a network and a dataset, a package, train.py, tests, a Makefile.

    Example: glimpse init my_project && cd my_project && make test
    """
    with one_line_errors():
        name = folder.resolve().name.replace("-", "_")
        if not name.isidentifier() or name in ("glimpse", "tests", "conf"):
            raise UserError(f"{folder}: expected a folder named like a Python package: my_project")
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty: type the name of a new folder")
        for file in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
            place = file.relative_to(TEMPLATE)
            if "__pycache__" in place.parts:
                continue
            parts = [name if part == NAME else RENAMED.get(part, part) for part in place.parts]
            written = folder.joinpath(*parts)
            written.parent.mkdir(parents=True, exist_ok=True)
            write_text(written, file.read_text(encoding="utf-8").replace(NAME, name))
        print(f"written: {folder}\ntype: cd {folder} && make test")
