"""Start a run from the command line and turn its end into an exit code; import nothing heavy.

This file orders flags and overrides, and turns `resume=` into the recorded overrides followed by
the new ones. job.py runs what Hydra has composed, distributed/ holds the processes besides the first
one, config/explain.py the error messages, and config/trust.py the checks of a run folder's record.
"""

import difflib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from glimpse import job
from glimpse.config import trust
from glimpse.config.choices import parts_hidden
from glimpse.config.explain import crash, explain, is_foreseen, shortage
from glimpse.config.folder import (
    CONFIG_DIR,
    CONFIG_NAME,
    ROOT,
    config_folder,
    config_folders,
    values_of,
)
from glimpse.config.lists import lists_by_name
from glimpse.config.own_files import named_if_unreadable, require_own_folder
from glimpse.config.quoting import as_typed, quoted
from glimpse.config.resolvers import register_resolvers
from glimpse.config.search_order import own_files_first
from glimpse.distributed.member import follow
from glimpse.distributed.place import Place, place_of
from glimpse.errors import Interrupted, UserError, raise_interrupted, stop_signals
from glimpse.files import require_current_folder, require_no_links_out
from glimpse.found_checkpoint import newest_run
from glimpse.streams import keep_printing
from glimpse.threads import spin_briefly

# The error of a failed single run. Hydra prints its own line for every exception that reaches it,
# so the error bypasses Hydra through this list. Jobs of a sweep raise, as sweepers expect.
_failure: list[Exception] = []


def main(*, config_dir: Path | None = None, config_name: str | None = None) -> int:
    """Run the command that `sys.argv` holds and turn its end into an exit code.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback of an error.

    Args:
        config_dir: A folder of configuration files beside our own, if `--config-dir` is not typed.
        config_name: The root configuration, if `--config-name` is not typed.

    Returns:
        0 if the task finished, 1 if it failed (with one line on stderr), 130 after Ctrl-C, 143
        after SIGTERM, 129 after SIGHUP.
    """
    keep_printing()
    spin_briefly()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise exceptions instead of printing them
    for number in stop_signals():  # Lightning would end a Ctrl-C with exit code 1
        signal.signal(number, raise_interrupted)
    place, code, line = Place(), 0, ""
    try:
        require_current_folder()
        place = place_of(os.environ)
        if place.rank > 0:
            return follow(place)
        register_resolvers()
        trust.guard_hydra()
        flags, overrides = split_arguments(sys.argv[1:])
        if is_sweep(flags) and place.world_size > 1:
            raise UserError(
                f"-m: a sweep starts the processes of its jobs; type python train.py -m without "
                f"{place.launcher}"
            )
        _require_sweep(flags, overrides)
        overrides = as_typed(overrides, is_sweep=is_sweep(flags))
        overrides = [*overrides, *_after_a_restart(place)]
        flags = _with_default_flags(flags, config_dir, config_name)
        sys.argv[1:] = [*flags, *with_recorded(overrides, flags)]
        with (
            lists_by_name(),
            own_files_first(),
            parts_hidden(),
            _named_if_hydra_cannot_write(),
            named_if_unreadable(config_folders(sys.argv[1:])),
        ):
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=ROOT)(
                task
            )()
        if _failure:
            raise _failure.pop()
    except Interrupted as stop:
        print(f"{stop}", file=sys.stderr)
        code = stop.exit_code
    except Exception as error:
        code = 1
        if not is_foreseen(error) and not wants_traceback:
            error = crash(error, None)
        line = explain(error)
        if wants_traceback:
            traceback.print_exc()
        else:
            print(f"error: {line}", file=sys.stderr, flush=True)
    if place.world_size > 1:
        _dismiss_others(place, code, line)
    return code


def _require_sweep(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Require -m for settings that only a sweep uses.

    Raises:
        UserError: it is missing.
    """
    of_sweeps = ("hydra/sweeper=", "hydra.sweeper.n_", "hydra/launcher=", "hydra.launcher.n_")
    found = next((word for word in overrides if word.startswith(of_sweeps)), None)
    if found is not None and not is_sweep(flags):
        raise UserError(f"{found} is a setting of sweeps: type -m too")


def task(config: DictConfig) -> float | None:
    """What Hydra calls once for each composed configuration; launchers pickle it by its name."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return job.run_of_sweep(config)
    try:
        return job.run_single(config)
    except Exception as error:
        _failure.append(error)
        return None


@contextmanager
def _named_if_hydra_cannot_write() -> Iterator[None]:
    """Name the place if Hydra cannot make a run folder or write its record there.

    Raises:
        UserError: the disk is full or read-only, for example.
    """
    try:
        yield
    except HydraException:  # some are OSErrors too, such as that of a choice that does not exist
        raise
    except OSError as error:
        if shortage(error) is not None or error.errno == errno.ENAMETOOLONG:
            raise
        places = [word for word in sys.argv if word.startswith(("output_dir=", "hydra.run.dir="))]
        place = error.filename or (["output_dir=outputs", *places])[-1].partition("=")[2].strip("'")
        raise UserError(
            f"cannot write {place}: {error.strerror or error}: type "
            "output_dir=<a folder where results can be written>"
        ) from error


def _after_a_restart(place: Place) -> list[str]:
    """The override that resumes the run after torchrun has restarted its processes."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return []
    from glimpse.distributed.team import interrupted_folder

    folder = interrupted_folder(place)
    if folder is None or not (Path(folder) / "checkpoints").is_dir():
        return []
    print(f"torchrun has started the processes again: resuming {folder}", flush=True)
    return [f"resume={folder}"]


def _dismiss_others(place: Place, code: int, line: str) -> None:
    """End the other processes if they are still waiting for a run."""
    from glimpse.distributed.team import connected

    try:
        team = connected(place)
        if not team.has_told:
            team.dismiss(code, line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)


def _with_default_flags(
    flags: list[str], config_dir: Path | None, config_name: str | None
) -> list[str]:
    """Add a project's own configuration folder and root, unless others were typed.

    Raises:
        UserError: the folder that was typed does not exist, or may not be read.
    """
    for place in values_of(flags, CONFIG_DIR):
        require_own_folder(Path(place))
    names = {flag.partition("=")[0] for flag in flags}
    if config_dir is not None and not names & set(CONFIG_DIR):
        flags = [CONFIG_DIR[0], str(config_dir), *flags]
    if config_name is not None and not names & set(CONFIG_NAME):
        flags = [CONFIG_NAME[0], config_name, *flags]
    return flags


# Hydra's flags that take a value, and those that take an optional value.
FLAGS_WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir",
    "-cd",
)  # fmt: skip
OTHER_FLAGS = (
    "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m",
    "--shell-completion", "-sc",
)  # fmt: skip
CFG, CFG_VALUES = ("--cfg", "-c"), ("job", "hydra", "all")
INFO = ("--info", "-i")
INFO_VALUES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate flags, with their values, from overrides, which argparse expects after all flags.

    Raises:
        UserError: there is no such flag, or it would execute the contents of a pickle.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("--experimental-rerun"):
            raise UserError(
                f"{word} is not allowed, because it executes a pickle: type resume=<run folder>"
            )
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in (*FLAGS_WITH_VALUE, *OTHER_FLAGS, *INFO):
            setting = (
                f"{name.lstrip('-')}={value or (rest[0] if rest and not equals else '<value>')}"
            )
            raise UserError(
                f"{name}: there is no such flag; settings have no dashes: type {setting}"
            )
        flags.append(word)
        if word in FLAGS_WITH_VALUE:
            value = rest.pop(0) if rest else ""
            flags.append(value)
        if name in FLAGS_WITH_VALUE:
            _require_value(name, value)
        elif word in INFO:
            flags.append(rest.pop(0) if rest and rest[0] in INFO_VALUES else "all")
    return flags, overrides


def _require_value(flag: str, value: str) -> None:
    """Require the value of a flag, which Hydra would otherwise take from the next word.

    Raises:
        UserError: there is none, or it is none of the flag's choices.
    """
    if flag in CFG and value not in CFG_VALUES:
        typed = f"{flag} {value}".strip()
        raise UserError(f"{typed}: expected one of {', '.join(CFG_VALUES)}: type {flag} job")
    if not value or value.startswith("-"):
        raise UserError(
            f"{flag}: expected a value after it, found {value or 'nothing'}: type {flag} <value>"
        )


def is_sweep(flags: Sequence[str]) -> bool:
    """Whether the flags ask for a sweep."""
    return bool({"-m", "--multirun"} & set(flags))


def with_recorded(overrides: list[str], flags: Sequence[str]) -> list[str]:
    """For `resume=<run folder>`, combine the recorded overrides with the new ones that follow them.

    The run continues in the same folder.

    Raises:
        UserError: the folder does not exist, or is not a run folder that can be trusted.
    """
    resume = [o.partition("=")[2] for o in overrides if o.startswith("resume=")]
    if not resume or resume[-1] == "null":
        return overrides
    if not resume[-1]:
        raise UserError("resume=: expected a run folder; resume=null begins a new run")
    folder = _run_folder(Path(os.path.expanduser(resume[-1].strip("'\""))))
    if is_sweep(flags):
        raise UserError(f"resume={folder}: a sweep cannot resume a run; remove -m")
    packages = trust.listed_packages([*flags, *overrides])
    recorded = trust.recorded_overrides(folder, packages, overrides)
    require_no_links_out(folder)
    place = quoted(folder)
    here = [f"resume={place}", f"hydra.run.dir={place}", "hydra.output_subdir=null"]
    return [*recorded, *here, *(o for o in overrides if not o.startswith("resume="))]


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
        raise UserError(f"resume={path} is a link that leads nowhere: type the run folder itself")
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.8)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"resume={path}: there is no such folder{hint}")
