"""From the command line to a run and back to an exit code; imports nothing heavy.

Here: the order of flags, `resume=` (recorded overrides first, then the new ones, in the same folder),
the names of run folders, and the processes that DDP starts. What a run does is in run.py; what an error
says, in explain.py; what a folder's record may say, in trust.py.
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
from glimpse.errors import Interrupted, UserError
from glimpse.files import require_no_links_out
from glimpse.threads import wait_passively

# Why a single run failed. Hydra prints a line of its own for an exception that reaches it, so the
# error takes this way around; a sweep's jobs raise, as sweepers expect.
_failure: list[Exception] = []


def main(task: Callable[[], None]) -> int:
    """Run the Hydra task and turn its end into an exit code.

    Returns:
        0 finished, 1 failed (after one line of cause on stderr), 130 after Ctrl-C, 143 after
        SIGTERM. With HYDRA_FULL_ERROR=1 in the environment an error keeps its traceback.
    """
    wait_passively()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra lets exceptions through to here
    signal.signal(signal.SIGTERM, _raise_interrupted)
    signal.signal(
        signal.SIGINT, _raise_interrupted
    )  # Lightning would end a Ctrl-C with exit code 1
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


# Hydra's flags that take a value, and those whose value may be left out.
FLAGS_WITH_VALUE = (
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir",
    "-cd",
)  # fmt: skip
INFO = ("--info", "-i")
INFO_VALUES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and overrides, which argparse wants in one piece behind the flags.

    Raises:
        UserError: a flag that runs a pickle.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("--experimental-rerun"):
            raise UserError(
                f"{word} is refused, since it runs what a pickle holds: type resume=<run folder>"
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
    """One run, or one job of a sweep.

    Returns:
        The best val/acc, which sweepers maximise.
    """
    hydra = HydraConfig.get()
    try:
        return _checked_run(config, hydra, Path(hydra.runtime.output_dir))
    except Exception as error:
        if hydra.mode == RunMode.MULTIRUN:  # the sweep goes on; say now what happened
            print(f"job {hydra.job.num} failed: {explain(error)}", file=sys.stderr)
            raise
        _failure.append(error)
        return None


def _checked_run(config: DictConfig, hydra: HydraConf, folder: Path) -> float | None:
    """Check the configuration, then run; a folder in which nothing was done is not left behind."""
    try:
        check(config, hydra.runtime.choices)
        from glimpse.run import run  # torch and lightning are imported from here on

        groups = ("data", "model", "optimizer", "scheduler", "loss", "augment")
        names = {group: str(hydra.runtime.choices[group]) for group in groups}
        return run(config, folder, names)
    finally:
        _discard_if_empty(folder)


def _discard_if_empty(folder: Path) -> None:
    """Remove a run folder that holds nothing but what Hydra has just written."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra"}:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # others' runs are in it
            folder.parent.rmdir()


def _raise_interrupted(signal_number: int, _frame: FrameType | None) -> None:
    raise Interrupted(signal_number)


def _refuse_other_launchers() -> None:
    """Each process of torchrun would make a run folder of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and RUN_FOLDER not in os.environ:
        raise UserError(
            "started with several processes (WORLD_SIZE is set): start one python train.py, "
            "which starts the others: trainer=ddp trainer.devices=4"
        )


def _with_recorded(overrides: list[str], *, is_sweep: bool) -> list[str]:
    """For `resume=<run folder>`: the folder's overrides, then the new ones, into the same folder.

    Raises:
        UserError: the folder is not there, or is not a run folder that can be trusted.
    """
    resume = [o.partition("=")[2] for o in overrides if o.startswith("resume=")]
    if not resume or resume[-1] in ("", "null"):
        return overrides
    folder = _run_folder(Path(resume[-1].strip("'\"")))
    if is_sweep:
        raise UserError(f"resume={folder}: one run at a time; leave -m out")
    recorded = trust.recorded_overrides(folder)
    require_no_links_out(folder)
    quoted = "'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'"
    here = [f"resume={quoted}", f"hydra.run.dir={quoted}", "hydra.output_subdir=null"]
    return [*recorded, *here, *(o for o in overrides if not o.startswith("resume="))]


def _run_folder(path: Path) -> Path:
    """The run that a path means: its folder, or one of its checkpoints.

    Raises:
        UserError: there is no such folder.
    """
    if path.suffix == ".ckpt" and path.parent.name == "checkpoints":
        return path.parent.parent
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"resume={path}: expected a run folder, or a checkpoint in one")
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), siblings, n=1, cutoff=0.8)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"resume={path}: there is no such folder{hint}")


def _run_as_ddp_process(folder: Path) -> None:
    """A further process of a DDP run: it takes the first one's configuration as it stands.

    Going through Hydra again would compose anew and, under `-m`, start the sweep again.
    """
    from glimpse.run import run

    config = OmegaConf.load(folder / DDP_CONFIG)
    assert isinstance(config, DictConfig)
    warnings.simplefilter("ignore")  # rank 0 has said it already
    with contextlib.suppress(Interrupted):  # the first process tells the shell
        run(config, folder, {"data": "", "model": ""})
