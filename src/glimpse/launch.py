"""Start a run from the command line and turn its end into an exit code; import nothing heavy.

config/flags.py puts flags before overrides, and config/recorded.py turns `resume=` into the
recorded overrides followed by the new ones. job.py runs the configuration that Hydra has composed,
distributed/ starts the other processes, config/explain.py writes the error messages, and
config/trust.py checks the record of a run folder.
"""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from glimpse import job
from glimpse.command import to_type
from glimpse.config import trust
from glimpse.config.compose import hydra_adapted
from glimpse.config.explain import explain, is_foreseen
from glimpse.config.flags import (
    is_sweep,
    require_their_use,
    split_arguments,
    with_default_flags,
)
from glimpse.config.folder import ROOT, config_folder, config_folders
from glimpse.config.quoting import quote_texts
from glimpse.config.recorded import with_recorded
from glimpse.config.replacing import replaced
from glimpse.config.resolvers import register_resolvers
from glimpse.config.shared_keys import jobs_judge_shared_keys
from glimpse.crash import crash, shortage
from glimpse.distributed.member import follow
from glimpse.distributed.place import Place, num_restarts, place_of
from glimpse.errors import Interrupted, UserError
from glimpse.files import require_current_folder
from glimpse.found_checkpoint import CHECKPOINTS
from glimpse.signals import handle_stops, interrupts_as_signals
from glimpse.streams import keep_printing
from glimpse.threads import spin_briefly

# The error of a failed single run. Hydra prints its own line for every exception that reaches it,
# so the error bypasses Hydra through this list. Jobs of a sweep raise, as sweepers expect.
_failure: list[Exception] = []


def main(*, config_dir: Path | None = None, config_name: str | None = None) -> int:
    """Run the command in `sys.argv` and turn its end into an exit code.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback of an error.

    Args:
        config_dir: A folder of configuration files in addition to ours, if `--config-dir` is not
            typed.
        config_name: The root configuration, if `--config-name` is not typed.

    Returns:
        0 if the task finished, 1 if it failed (with one line on stderr), 130 after Ctrl-C, 143
        after SIGTERM, 129 after SIGHUP, 138 after SIGUSR1, 140 after SIGUSR2.
    """
    keep_printing()
    spin_briefly()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise exceptions instead of printing them
    handle_stops()  # Lightning would end a Ctrl-C with exit code 1
    place, code, line = Place(), 0, ""
    try:
        require_current_folder()
        place = place_of(os.environ)
        if place.rank > 0:
            return follow(place)
        register_resolvers()
        trust.guard_hydra()
        sys.argv[1:] = _arguments(place, config_dir, config_name)
        with (
            help_unchecked(),
            interrupts_as_signals(),
            _named_if_hydra_cannot_write(),
            hydra_adapted(config_folders(sys.argv[1:])),
            jobs_judge_shared_keys(),
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


def _arguments(place: Place, config_dir: Path | None, config_name: str | None) -> list[str]:
    """The words of the command line as Hydra expects them: flags, then overrides.

    Raises:
        UserError: they do not fit each other.
    """
    flags, overrides = split_arguments(sys.argv[1:])
    if is_sweep(flags) and place.world_size > 1:
        raise UserError(
            f"-m: a sweep starts the processes of its jobs; type {to_type('-m')} without "
            f"{place.launcher}"
        )
    require_their_use(flags, overrides)
    overrides = quote_texts(overrides, is_sweep=is_sweep(flags))
    overrides = [*overrides, *_after_a_restart(place)]
    flags = with_default_flags(flags, config_dir, config_name)
    return [*flags, *with_recorded(overrides, flags)]


def help_unchecked() -> AbstractContextManager[None]:
    """Let Hydra 1.3 define a flag whose help is no text until it is shown.

    Since Python 3.14, argparse formats every help when its flag is defined, and refuses this one.
    """
    parser = argparse.ArgumentParser
    has_check = hasattr(parser, "_check_help")
    return replaced(*[(parser, "_check_help", lambda *_: None)] if has_check else ())


def task(config: DictConfig) -> float | None:
    """The function that Hydra calls for each configuration; launchers pickle it by its name."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return job.run_of_sweep(config)
    try:
        return job.run_single(config)
    except Exception as error:
        _failure.append(error)
        return None


@contextmanager
def _named_if_hydra_cannot_write() -> Iterator[None]:
    """Name the folder if Hydra cannot create it or write its record there.

    Raises:
        UserError: the disk is full or read-only, for example.
    """
    try:
        yield
    except HydraException:  # some are OSErrors too, such as the error for an unknown choice
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
    if not num_restarts():
        return []
    from glimpse.distributed.team import interrupted_folder

    folder = interrupted_folder(place)
    if folder is None or not (Path(folder) / CHECKPOINTS).is_dir():
        return []
    print(f"torchrun has restarted the processes: resuming {folder}", flush=True)
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
