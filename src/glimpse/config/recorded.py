"""Combine the overrides of a resumed run: its own, those of earlier resumes, and the new ones."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from glimpse.config import trust
from glimpse.config.flags import is_sweep
from glimpse.config.quoting import quoted
from glimpse.errors import UserError
from glimpse.files import require_no_links_out
from glimpse.found_checkpoint import newest_run


def with_recorded(overrides: list[str], flags: Sequence[str]) -> list[str]:
    """For `resume=<run folder>`, combine the recorded overrides with the new ones that follow them.

    Settings that were typed at an earlier resume stay. The run continues in the same folder.

    Raises:
        UserError: the folder does not exist, or is not a run folder that can be trusted.
    """
    resume = [o.partition("=")[2] for o in overrides if o.startswith("resume=")]
    if not resume or resume[-1] == "null":
        return overrides
    if not resume[-1]:
        raise UserError("resume=: expected a run folder; resume=null starts a new run")
    folder = _run_folder(Path(os.path.expanduser(resume[-1].strip("'\""))))
    if is_sweep(flags):
        raise UserError(f"resume={folder}: a sweep cannot resume a run; remove -m")
    packages = trust.listed_packages([*flags, *overrides])
    later = trust.resumed_overrides(folder, packages, overrides)
    recorded = trust.recorded_overrides(folder, packages, [*later, *overrides])
    require_no_links_out(folder)
    place = quoted(folder)
    here = [f"resume={place}", f"hydra.run.dir={place}", "hydra.output_subdir=null"]
    typed = [o for o in overrides if not o.startswith("resume=")]
    return [*recorded, *here, *later, *typed]


def _run_folder(path: Path) -> Path:
    """The run folder for a path, which may be the folder itself or one of its checkpoints.

    Raises:
        UserError: there is no such folder.
    """
    if path.suffix == ".ckpt" and path.parent.name == "checkpoints":
        return path.parent.parent
    if path.is_dir():
        inside = None if os.path.lexists(path / ".hydra") else newest_run(path)
        if (path / "multirun.yaml").is_file():
            raise UserError(
                f"resume={path}: it is the folder of a sweep: type the sweep's command again"
            )
        if inside:
            raise UserError(f"resume={path}: not a run folder; type one, such as resume={inside}")
        return path
    if path.exists():
        raise UserError(f"resume={path}: expected a run folder, or a checkpoint inside one")
    if path.is_symlink():
        raise UserError(f"resume={path} is a broken link: type the run folder itself")
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.8)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"resume={path}: there is no such folder{hint}")
