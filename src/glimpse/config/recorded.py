"""Combine the overrides of a resumed run: its own, those of earlier resumes, and the new ones."""

import difflib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glimpse.command import in_shell
from glimpse.config import trust
from glimpse.config.flags import is_sweep
from glimpse.config.folder import ROOT, choices_of, config_folders, root_name
from glimpse.config.keys import content_of, is_in, keys_of_choice
from glimpse.config.quoting import quoted, unquoted
from glimpse.config.schema import GROUPS, LISTS, TAKES_A_MAPPING
from glimpse.errors import UserError
from glimpse.files import require_no_links_out
from glimpse.found_checkpoint import CHECKPOINTS, newest_run
from glimpse.records import mapping
from glimpse.runs.folder import LIST_THEM

BATCH_SIZES = ("data.batch_size", "data.global_batch_size")  # one of them is typed


def with_recorded(overrides: list[str], flags: Sequence[str]) -> list[str]:
    """For `resume=<run folder>`, combine the recorded overrides with the new ones that follow them.

    Settings that were typed at an earlier resume stay. If another choice of a group was typed, settings
    that it does not have are left out. The run continues in the same folder.

    Raises:
        UserError: the folder does not exist, or is not a run folder that can be trusted.
    """
    resume = [o.partition("=")[2] for o in overrides if o.startswith("resume=")]
    if not resume or resume[-1] == "null":
        return overrides
    folder = _run_folder(Path(os.path.expanduser(unquoted(resume[-1]))))
    if is_sweep(flags):
        raise UserError(f"resume={folder}: a sweep cannot resume a run; remove -m")
    _require_its_own_place(overrides, folder)
    packages = trust.listed_packages([*flags, *overrides])
    later = trust.resumed_overrides(folder, packages, overrides)
    recorded = trust.recorded_overrides(folder, packages, [*later, *overrides])
    require_no_links_out(folder)
    place = quoted(folder)
    here = [f"resume={place}", f"hydra.run.dir={place}", "hydra.output_subdir=null"]
    typed = [o for o in overrides if not o.startswith("resume=")]
    arguments = [*flags, *overrides]
    folders = config_folders(arguments)
    known = _keys_of_choices([*later, *typed], folders, root_name(arguments))
    lost = [o for o in (*recorded, *later) if not _fits(o, known, folders)]
    if lost:
        print(
            "settings of the run that its new choices do not have are left out: "
            f"{', '.join(map(_key, lost))}",
            file=sys.stderr,
        )
    lost += [o for o in (*recorded, *later) if _key(o) in _replaced_by(map(_key, typed))]
    kept, kept_later = ([o for o in words if o not in lost] for words in (recorded, later))
    return [*kept, *here, *kept_later, *typed]


def _require_its_own_place(overrides: Sequence[str], folder: Path) -> None:
    """Reject another run folder for the results, and remark on an `output_dir` that is not used.

    Raises:
        UserError: `hydra.run.dir` names another folder.
    """
    whole = folder.resolve()
    for override in overrides:
        key, _, value = override.partition("=")
        place = Path(os.path.expanduser(unquoted(value))).resolve()
        if key == "hydra.run.dir" and place != whole and "${" not in value:
            raise UserError(
                f"{override}: a resumed run writes into its own folder, {folder}: leave out {key}"
            )
        if key == "output_dir" and place not in whole.parents:
            print(f"{override} is not used: a resumed run writes into {folder}", file=sys.stderr)


def _keys_of_choices(
    overrides: Sequence[str], folders: Sequence[Path], root_name: str
) -> dict[str, dict[str, Any]]:
    """The keys of each group for which the overrides choose files, and its keys in the root.

    Left out are groups with a choice that cannot be read, which Hydra will report.

    Args:
        overrides: The overrides; a later choice of a group replaces an earlier one.
        folders: The folders of configuration files.
        root_name: The name of the root configuration.
    """
    root: dict[str, Any] = {}
    for name in dict.fromkeys((ROOT, root_name)):  # a project's root includes ours
        for file in (folder / f"{name}.yaml" for folder in folders):
            root |= content_of(file) or {}
    found: dict[str, dict[str, Any]] = {}
    for override in overrides:
        group, _, choice = override.partition("=")
        if group in (*GROUPS, *LISTS):
            found.pop(group, None)
            chosen = keys_of_choice(group, choice, folders)
            own = root.get(group)
            if chosen is not None:
                found[group] = mapping(own) | chosen
    return found


def _fits(override: str, known: Mapping[str, Mapping[str, Any]], folders: Sequence[Path]) -> bool:
    """Whether the new choice of its group, if there is one, has the key of an override."""
    group, _, key = _key(override).partition(".")
    if not key or group not in known or f"{group}.{key}".startswith(TAKES_A_MAPPING):
        return True
    if group in LISTS and key.partition(".")[0] not in choices_of(group, folders):
        return True  # not from a file, but added by an experiment or with +
    return is_in(known[group], key)


def _replaced_by(typed: Iterable[str]) -> set[str]:
    """The other one of the two keys that give the size of a batch, if one of them was typed."""
    return {BATCH_SIZES[1 - BATCH_SIZES.index(key)] for key in typed if key in BATCH_SIZES}


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _run_folder(path: Path) -> Path:
    """The run folder for a path, which may be the folder itself or one of its checkpoints.

    Raises:
        UserError: there is no such folder.
    """
    if path.suffix == ".ckpt" and path.parent.name == CHECKPOINTS:
        return path.parent.parent
    if path.is_dir():
        inside = None if os.path.lexists(path / ".hydra") else newest_run(path)
        if (path / "multirun.yaml").is_file():
            raise UserError(
                f"resume={path}: it is the folder of a sweep: type the sweep's command again"
            )
        if inside == path:
            raise UserError(
                f"resume={path}: the folder .hydra, which records its settings, is missing: restore it"
            )
        if inside:
            raise UserError(
                f"resume={path}: not a run folder; type one, such as {in_shell(f'resume={inside}')}"
            )
        return path
    if path.exists():
        raise UserError(f"resume={path}: expected a run folder, or a checkpoint inside one")
    if path.is_symlink():
        raise UserError(f"resume={path} is a broken link: type the run folder itself")
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    siblings = [str(p) for p in beside if os.path.lexists(p / ".hydra")]
    near = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.8)
    hint = f"; did you mean {near[0]}?" if near else f"; {LIST_THEM}"
    raise UserError(f"resume={path}: there is no such folder{hint}")
