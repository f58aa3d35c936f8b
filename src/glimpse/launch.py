"""Start a run from the command line and turn its end into an exit code; import nothing heavy.

This file handles the order of flags, `resume=` (recorded overrides first, then the new ones, in the
same folder), and the processes that DDP starts. run.py holds the run itself, config/explain.py the
error messages, and config/trust.py the checks of what a run folder has recorded.
"""

import contextlib
import difflib
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from glimpse.config import trust
from glimpse.config.check import check
from glimpse.config.explain import crash, explain, is_foreseen
from glimpse.config.run_names import register_resolvers
from glimpse.distributed import DDP_CONFIG, RUN_FOLDER
from glimpse.errors import Interrupted, UserError, stop_signals
from glimpse.files import require_no_links_out
from glimpse.streams import keep_printing
from glimpse.threads import spin_briefly

# The error of a failed single run. Hydra prints its own line for every exception that reaches it,
# so the error bypasses Hydra through this list. Jobs of a sweep raise, as sweepers expect.
_failure: list[Exception] = []


def main(task: Callable[[], None]) -> int:
    """Run the Hydra task and turn its end into an exit code.

    HYDRA_FULL_ERROR=1 in the environment shows the traceback of an error.

    Returns:
        0 if the task finished, 1 if it failed (with one line on stderr), 130 after Ctrl-C, 143
        after SIGTERM, 129 after SIGHUP.
    """
    keep_printing()
    spin_briefly()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise exceptions instead of printing them
    for number in stop_signals():  # Lightning would end a Ctrl-C with exit code 1
        signal.signal(number, _raise_interrupted)
    try:
        if os.environ.get("LOCAL_RANK", "0") != "0" and RUN_FOLDER in os.environ:
            _run_as_ddp_process(Path(os.environ[RUN_FOLDER]))
        else:
            _refuse_other_launchers()
            register_resolvers()
            trust.guard_hydra()
            flags, overrides = split_arguments(sys.argv[1:])
            sys.argv[1:] = [*flags, *_with_recorded(overrides, is_sweep=is_sweep(flags))]
            task()
        if _failure:
            raise _failure.pop()
    except Interrupted as stop:
        print(f"{stop}", file=sys.stderr)
        return stop.exit_code
    except Exception as error:
        if wants_traceback:
            raise
        if not is_foreseen(error):
            error = crash(error, None)
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    return 0


# Hydra's flags that take a value, and those that take an optional value.
FLAGS_WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir",
    "-cd",
)  # fmt: skip
INFO = ("--info", "-i")
INFO_VALUES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate flags, with their values, from overrides, which argparse expects after all flags.

    Raises:
        UserError: a flag would execute the contents of a pickle.
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
        flags.append(word)
        if word in FLAGS_WITH_VALUE and rest:
            flags.append(rest.pop(0))
        elif word in INFO:
            flags.append(rest.pop(0) if rest and rest[0] in INFO_VALUES else "all")
    return flags, overrides


def is_sweep(flags: Sequence[str]) -> bool:
    """Whether the flags ask for a sweep."""
    return bool({"-m", "--multirun"} & set(flags))


def job(config: DictConfig) -> float | None:
    """Run once, alone or as one job of a sweep.

    Returns:
        The best value of the monitor, val/acc by default, for a sweeper.
    """
    hydra = HydraConfig.get()
    try:
        return _checked_run(config, hydra, Path(hydra.runtime.output_dir))
    except Exception as error:
        if hydra.mode == RunMode.MULTIRUN:  # the sweep continues, so report the error now
            print(f"job {hydra.job.num} failed: {explain(error)}", file=sys.stderr)
            raise
        _failure.append(error)
        return None


def _checked_run(config: DictConfig, hydra: HydraConf, folder: Path) -> float | None:
    """Check the configuration, then run. Remove the folder if nothing was written to it."""
    try:
        check(config, hydra.runtime.choices)
        from glimpse.run import run  # torch and lightning are imported from here on

        groups = ("data", "model", "optimizer", "scheduler", "loss", "augment")
        names = {group: str(hydra.runtime.choices[group]) for group in groups}
        return run(config, folder, names)
    finally:
        _discard_if_empty(folder)


def _discard_if_empty(folder: Path) -> None:
    """Remove a run folder that contains only the files that Hydra has just written."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra"}:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # the parent may contain other runs
            folder.parent.rmdir()


def _raise_interrupted(signal_number: int, _frame: FrameType | None) -> None:
    raise Interrupted(signal_number)


def _refuse_other_launchers() -> None:
    """Reject launchers such as torchrun, whose processes would each create a run folder."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and RUN_FOLDER not in os.environ:
        raise UserError(
            "several processes were started (WORLD_SIZE is set), but one is expected, which starts "
            "the others: type python train.py trainer=ddp trainer.devices=4"
        )


def _with_recorded(overrides: list[str], *, is_sweep: bool) -> list[str]:
    """For `resume=<run folder>`, combine the recorded overrides with the new ones that follow them.

    The run continues in the same folder.

    Raises:
        UserError: the folder does not exist, or is not a run folder that can be trusted.
    """
    resume = [o.partition("=")[2] for o in overrides if o.startswith("resume=")]
    if not resume or resume[-1] in ("", "null"):
        return overrides
    folder = _run_folder(Path(resume[-1].strip("'\"")))
    if is_sweep:
        raise UserError(f"resume={folder}: a sweep cannot resume a run; remove -m")
    recorded = trust.recorded_overrides(folder)
    require_no_links_out(folder)
    quoted = "'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'"
    here = [f"resume={quoted}", f"hydra.run.dir={quoted}", "hydra.output_subdir=null"]
    return [*recorded, *here, *(o for o in overrides if not o.startswith("resume="))]


def _run_folder(path: Path) -> Path:
    """The run folder for a path, which may be the folder itself or one of its checkpoints.

    Raises:
        UserError: there is no such folder.
    """
    if path.suffix == ".ckpt" and path.parent.name == "checkpoints":
        return path.parent.parent
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"resume={path}: expected a run folder, or a checkpoint inside one")
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.8)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"resume={path}: there is no such folder{hint}")


def _run_as_ddp_process(folder: Path) -> None:
    """Run as an additional process of a DDP run, with the first process's configuration.

    Going through Hydra again would compose a new configuration and, under `-m`, restart the sweep.
    """
    from glimpse.run import run

    config = OmegaConf.load(folder / DDP_CONFIG)
    assert isinstance(config, DictConfig)
    warnings.simplefilter("ignore")  # rank 0 has already shown them
    with contextlib.suppress(Interrupted):  # the first process sets the exit code
        run(config, folder, {"data": "", "model": ""})
