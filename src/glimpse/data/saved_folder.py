"""Find the broken file in a folder that `save_to_disk` of Hugging Face's datasets wrote.

The library's own errors do not name the file. This check runs only after loading has failed. Source
of the layout: datasets 4, `Dataset.save_to_disk` and `DatasetDict.save_to_disk`.
"""

from pathlib import Path
from typing import Any, TypeGuard

from glimpse.errors import first_line
from glimpse.records import UnreadableError, listed, mapping, read_json

DICT, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def broken_file(folder: Path) -> str | None:
    """The first file that is missing or damaged, and why; None if none is found."""
    try:
        if not (folder / DICT).exists():
            return _of_one_split(folder)
        splits = read_json(folder, DICT).get("splits")
        if not _is_names(splits):
            return f'{folder / DICT}: expected {{"splits": ["train", …]}}, found {splits!r:.60}'
        return next((wrong for name in splits if (wrong := _of_one_split(folder / name))), None)
    except UnreadableError as error:
        return str(error)


def _of_one_split(folder: Path) -> str | None:
    from datasets import Features

    state = read_json(folder, STATE)
    files = state.get("_data_files")
    if files == []:
        return f"{folder / STATE} lists no files, so there are no images"
    named = [mapping(one).get("filename") for one in listed(files)]
    if not _is_names(named):
        return f"{folder / STATE}: expected a list of files under _data_files, found {files!r:.60}"
    for key in ("_fingerprint", "_format_type", "_split"):
        if not isinstance(state.get(key), str | None):
            return f"{folder / STATE}: expected text under {key}, found {state[key]!r:.60}"
    features = read_json(folder, INFO).get("features")
    if not isinstance(features, dict) or not all(isinstance(f, dict) for f in features.values()):
        return f"{folder / INFO}: expected the columns under features, found {features!r:.60}"
    try:
        Features.from_dict(features)
    except Exception as error:  # the library raises errors of any type
        return f"{folder / INFO}: {first_line(error)[:80]}"
    return next((wrong for name in named if (wrong := _of_arrow(folder / name))), None)


def _of_arrow(path: Path) -> str | None:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            stream.read_all()
    except FileNotFoundError:
        return f"{path} is missing"
    except (OSError, pyarrow.ArrowException) as error:
        return f"{path} is damaged or truncated: {first_line(error)}"
    return None


def _is_names(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
