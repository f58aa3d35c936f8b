"""Get a dataset's contents from the cache, or from its files, which are then checked and cached."""

import os
from functools import partial
from typing import TYPE_CHECKING

from glimpse.console import console
from glimpse.data import cache
from glimpse.data.arguments import described, without_place
from glimpse.data.cache import Contents, Stored
from glimpse.data.identity import common_folder, identity, marks
from glimpse.data.spec import Arrays, Files, Source, check_source
from glimpse.data.splits import kept_labels
from glimpse.errors import UnreadableImageError, UserError
from glimpse.progress_bar import progress_bar

if TYPE_CHECKING:
    from glimpse.data.module import ImageDataModule

FEW = 100  # files that are looked at more closely


def contents_of(data: "ImageDataModule") -> Contents:
    """Return the contents of a dataset, from the cache if it uses one.

    Raises:
        UserError: the dataset cannot be read, or its cache cannot be written.
    """
    read = partial(checked_source, data)
    if data.embedded or not data.cache:
        found = cache.without_cache(read, data.pixel_format)
    else:
        folder = data.data_dir / ".cache" / f"{type(data).__name__.lower()}-{cache_key(data)}"
        try:
            found = cache.load_or_build(
                folder,
                read,
                data.pixel_format,
                num_workers=data.num_workers,
                skip_unreadable=data.skip_unreadable,
            )
        except UnreadableImageError as error:
            if data.skip_unreadable or "data.on_bad_file" in str(error):
                raise
            raise UnreadableImageError(
                f"{error}; or type data.on_bad_file=skip to leave out such files"
            ) from error
    height, width, _ = found.format.shape
    if data.presize not in (None, (height, width)):
        raise UserError(
            f"data.presize: this dataset contains {width}×{height} pixels, not image files; remove "
            "data.presize"
        )
    return found


def checked_source(data: "ImageDataModule") -> Source:
    """Read a dataset; wrong labels and unknown classes are reported before anything is decoded."""
    source = data.read()
    check_source(source, fewest_classes=data.fewest_classes)
    kept_labels(source.class_names, data.classes)
    return source


def cache_key(data: "ImageDataModule") -> str:
    """Return a key for everything that determines the cached pixels and labels.

    This includes the files (by name, size and modification time), the class that reads them, and
    its arguments. The key stays the same if the folder moves.
    """
    files = [str(path) for path in data.source_files()]
    listed = next((path for path in files[:FEW] if os.path.isdir(path)), None)
    if listed is not None:
        raise UserError(
            f"{type(data).__name__}.source_files() returns the folder {listed}, expected its files, so that changes "
            "in them are noticed: return sorted(path for path in folder.rglob('*') if path.is_file())"
        )
    folder = common_folder(files)
    place = partial(without_place, folder=folder, data_dir=data.data_dir)
    common = (data.presize, data.fit, data.skip_unreadable)
    settings = described((common, data.own_arguments), place)
    return cache.fingerprint(
        folder, files, data.readers, settings, skip_unreadable=data.skip_unreadable
    )


def identity_of(contents: Contents, *, num_workers: int) -> str:
    """Return the identity of all images and labels: the cache's, or else computed."""
    if contents.identity is not None:
        return contents.identity
    parts = {
        name: Arrays(part.images, part.labels) if isinstance(part, Stored) else part
        for name, part in contents.parts.items()
    }
    files = {name: part.paths for name, part in parts.items() if isinstance(part, Files)}
    total = sum(map(len, files.values()))
    with progress_bar(
        "identifying", total, unit="file", vanishes=True, shown=not console.quiet
    ) as bar:
        found = {n: marks(p, num_workers=num_workers, done=bar.update) for n, p in files.items()}
    return identity(contents.class_names, parts, found)
