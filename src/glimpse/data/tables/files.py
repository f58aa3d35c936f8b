"""The image files that a table names, with paths as any operating system writes them.

A path is relative to the folder of its table, or to `folder` there. A file that is missing is
reported with its line and what to type.
"""

import functools
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from glimpse.command import in_shell
from glimpse.data.formats import readable_endings
from glimpse.data.tables.table import Table, shown
from glimpse.errors import UserError
from glimpse.text import plural

NUM_TRIED = 500  # rows whose files must be where a message says that the files are


class TableFiles:
    """Finds the file that a cell names.

    Args:
        folder: Folder of the files, relative to the folder of the table.
        suffix: File extension to add to the cells.
        skip_unreadable: Whether a missing file is left for the cache to skip.
    """

    def __init__(self, folder: str | None, suffix: str | None, *, skip_unreadable: bool) -> None:
        self.folder = Path(os.path.expanduser(folder or ""))
        is_bare = suffix is not None and f".{suffix.lower()}" in readable_endings()
        self.suffix = f".{suffix}" if is_bare else suffix or ""
        self.skip_unreadable = skip_unreadable
        self._folders: dict[Table, str] = {}  # joined once, because pathlib is slow for each row

    def path(self, table: Table, cell: str) -> str:
        """Return the path that a cell names."""
        ending = "" if cell.lower().endswith(self.suffix.lower()) else self.suffix
        cell = os.path.expanduser(cell) if cell.startswith("~") else cell
        if table not in self._folders:
            self._folders[table] = str(table.path.parent / self.folder)
        return os.path.join(self._folders[table], f"{cell}{ending}")

    def found(self, table: Table, cell: str) -> str | None:
        """Return the path of the file that a cell names, in this or another system's spelling."""
        path = self.path(table, cell)
        return path if _is_there(path) else next(filter(_is_there, other_spellings(path)), None)

    def identity(self, table: Table, cell: str) -> str:
        """Return the path of the file that a cell names, the same for every link and spelling."""
        return one_path(self.found(table, cell) or self.path(table, cell))

    def locations(self, table: Table, column: str) -> Iterator[tuple[int, str]]:
        """Yield each row's line and the path of the file that it names in a column.

        Raises:
            UserError: a cell is empty, or names no file. The message counts the other missing files.
        """
        index = table.index(column)
        rows = table.rows()
        for line, row in rows:
            if not row[index]:
                raise UserError(f"{table.place(line)}: the column {column!r} is empty")
            found = self.found(table, row[index])
            if found is None and not self.skip_unreadable:
                more = sum(not self.found(table, other[index]) for _, other in rows if other[index])
                also = (
                    f"; {plural(more, 'more file')} of this table cannot be found" if more else ""
                )
                fault = self._fault(table, column, row[index])
                raise UserError(f"{table.place(line)}, column {column}: {fault}{also}")
            yield line, found or self.path(table, row[index])

    def _fault(self, table: Table, column: str, cell: str) -> str:
        """Return what is wrong with a cell that names no file, and what to do."""
        if cell.startswith("file://"):
            return f"{shown(cell)} is an address, expected a path: remove file://"
        if "://" in cell:
            return (
                f"{shown(cell)} is a web address, expected a path: download the images and write "
                "their paths instead"
            )
        if os.path.isdir(self.path(table, cell)):
            return (
                f"{shown(cell)} is a folder, expected an image file: write a line for each image, or type "
                "data=image_folder data.root=<the folder of the classes' folders> without the table"
            )
        wanted = self.path(table, cell)[-200:]
        return f"{shown(cell)} is missing, expected the file {wanted}: {self._remedy(table, column, cell)}"

    def _remedy(self, table: Table, column: str, cell: str) -> str:
        """Return what to type if a cell names a file that is missing."""
        here = table.path.parent
        sample = [row[table.index(column)] for row in table.sample(NUM_TRIED)]
        present = [other for other in sample if self.found(table, other)]
        skip = ", or type data.on_bad_file=skip to leave it out" if present else ""
        if not (here / self.folder).is_dir() and not os.path.isabs(cell):
            return (
                f"there is no folder {here / self.folder}; type data.folder=<folder of the images>, "
                "relative to the table's"
            )
        inside = dict.fromkeys([here / self.folder, here, *_folders_in(here)])
        above = (here / "..", here / "../..", Path.cwd(), table.path.resolve().parent)
        places = list(product((*inside, *above), ("", *readable_endings())))

        def is_at(place: tuple[Path, str], name: str) -> bool:
            return os.path.isfile(os.path.join(place[0], name + place[1]))

        is_elsewhere = False
        for folder, ending in places:
            if is_at((folder, ending), cell):
                is_elsewhere = True
                lost = [c for c in present or sample if not is_at((folder, ending), c)]
                if lost and (present or any(is_at(place, lost[0]) for place in places)):
                    continue  # it would find this file, and lose others
                keys = [f"data.folder={os.path.relpath(folder, here)}"]
                suffix = [f"data.suffix={ending or 'null'}"] * (ending != self.suffix)
                return f"type {in_shell(*keys, *suffix)}"
        if is_elsewhere:
            return (
                f"the files of {column} are in several folders or have several endings, so write both into the "
                "column"
            )
        parts = cell.replace("\\", "/").split("/")
        tails = [os.path.join(*parts[start:]) for start in range(len(parts)) if parts[start]]
        for tail in tails:  # of a path on another machine, find the longest tail that exists here
            for folder in inside:
                if os.path.isfile(folder / tail):
                    there = os.path.relpath(folder / tail, here / self.folder)
                    return f"is it {there}? correct the column{skip}"
        if in_other_case := _in_other_case(here / self.folder, parts):
            return f"is it {in_other_case}, in upper or lower case? correct the column{skip}"
        return f"restore the file, or correct the cell{skip}"


def one_path(path: str) -> str:
    """Return the path that a file has without links."""
    folder, name = os.path.split(path)
    direct = os.path.join(_without_links(folder), name)
    return os.path.realpath(direct) if os.path.islink(direct) else direct


@functools.lru_cache(1024)
def _without_links(folder: str) -> str:
    return os.path.realpath(folder)


def _in_other_case(folder: Path, parts: Sequence[str]) -> str | None:
    """Return the path below `folder` with these parts in any case, as Windows and macOS find it."""
    there = folder
    for part in parts:
        try:
            names = os.listdir(there)
        except OSError:
            return None
        same = [name for name in names if name.casefold() == part.casefold()]
        if not same:
            return None
        there /= same[0]
    return os.path.relpath(there, folder)


def _folders_in(folder: Path) -> list[Path]:
    """Return the folders below one, upper ones first: three levels, at most about a thousand."""
    found = []
    for place, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [Path(place, name) for name in names]
        if len(found) > 1000:
            break
        if len(Path(place).relative_to(folder).parts) == 2:
            names.clear()
    return sorted(found, key=lambda path: (len(path.parts), path))


def other_spellings(path: str) -> Iterator[str]:
    """Yield a path as other systems write it: with / for \\, its ending in the other case, and with
    accents as separate characters (macOS) or not.
    """
    for one in dict.fromkeys((path, path.replace("\\", "/"))):
        stem, ending = os.path.splitext(one)
        for two in dict.fromkeys((one, f"{stem}{ending.lower()}", f"{stem}{ending.upper()}")):
            yield two
            yield from (unicodedata.normalize(form, two) for form in ("NFC", "NFD"))


def _is_there(path: str) -> bool:
    """Whether a path exists and is not a folder."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):  # ValueError: a name with a byte of zero
        return False
