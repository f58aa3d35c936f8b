"""From the command line to a run and back to an exit code; imports nothing heavy.

Here: `resume=` (recorded overrides first, then the new ones, in the same folder), the names of run
folders, one-line errors, and the processes that DDP starts. What a run does is in run.py.
"""

import contextlib
import difflib
import os
import re
import secrets
import shutil
import signal
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from glimpse import config as configuration
from glimpse.errors import Interrupted, UserError

# Why a single run failed. Hydra prints a line of its own for an exception that reaches it, so the
# error takes this way around; a sweep's jobs raise, as sweepers expect.
_failure: list[Exception] = []

RUN_FOLDER = "GLIMPSE_RUN_FOLDER"  # tells the processes that DDP starts which run they belong to


def main(task: Callable[[], None]) -> int:
    """Run the Hydra task and turn its end into an exit code.

    Returns:
        0 finished, 1 failed (after one line of cause on stderr), 130 after Ctrl-C, 143 after
        SIGTERM. With HYDRA_FULL_ERROR=1 in the environment an error keeps its traceback.
    """
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
            sys.argv[1:] = _with_resumed_overrides(sys.argv[1:])
            task()
        if _failure:
            raise _failure.pop()
    except Interrupted as stop:
        print(f"{stop}", file=sys.stderr)
        return stop.exit_code
    except Exception as error:
        if wants_traceback:
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    return 0


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
        configuration.check(config, hydra.runtime.choices)
    except UserError:
        _discard_if_empty(folder)
        raise
    from glimpse.run import run  # torch and lightning are imported from here on

    groups = ("data", "model", "optimizer", "scheduler", "loss", "augment")
    names = {group: str(hydra.runtime.choices[group]) for group in groups}
    result = run(config, folder, names)
    if config.check:
        _discard_if_empty(folder)
    return result


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration that `python train.py <overrides>` would run, checked.

    Raises:
        Exception: whatever `explain` has one line for.
    """
    register_resolvers()
    with initialize_config_dir(str(configuration.config_folder()), version_base="1.3"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
        choices = config.hydra.runtime.choices
        with open_dict(config):
            del config["hydra"]
        configuration.check(config, choices)
    return config


def explain(error: BaseException, typed: Sequence[str] | None = None) -> str:
    """One line for an error: what was found, what was expected, what to type.

    Args:
        error: what was raised.
        typed: the overrides that led to it; None: the process's arguments.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _explain_missing_choice(error, typed)
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException):
        key = re.search(r"Could not override '([^']+)'", str(error))
        if key:
            return configuration.unknown_key(key[1], _known_keys(typed))
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {str(error).splitlines()[0]}; overrides look like key=value"
    if "Config group override must be" in str(error):  # of a ValueError
        return _explain_no_choice(error, typed)
    if "Ambiguous value" in str(error):
        return f"{_one_line(str(error))}: type -m to sweep over the values, or key=[1,2] for a list"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _one_line(str(error))
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return f"{type(error).__name__}: {_one_line(str(error))} (HYDRA_FULL_ERROR=1 shows where)"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _explain_missing_choice(error: MissingConfigException, typed: Sequence[str] | None) -> str:
    missing = re.search(r"'([\w/]+)/([^/']+)'", str(error))
    if not missing:
        return _one_line(str(error))
    group, choice = missing.groups()
    files = (configuration.config_folder() / group).glob("[!_]*.yaml")
    available = [file.stem for file in files]
    if not available:
        return configuration.unknown_key(group, _known_keys(typed))
    return configuration.unknown_choice(group, choice, available)


def _explain_no_choice(error: BaseException, typed: Sequence[str] | None) -> str:
    for argument in sys.argv[1:] if typed is None else typed:
        group, _, chosen = argument.lstrip("+").partition("=")
        files = (configuration.config_folder() / group).glob("[!_]*.yaml")
        available = [file.stem for file in files]
        if available and chosen[:1] != "[" and chosen not in available:
            return configuration.unknown_choice(group, chosen, available)
    return _one_line(str(error))


def _known_keys(typed: Sequence[str] | None) -> list[str]:
    """The keys of the configuration that the overrides chose, without their values."""
    groups = {path.name for path in configuration.config_folder().iterdir() if path.is_dir()}
    choices = []
    for argument in sys.argv[1:] if typed is None else typed:
        group, _, chosen = argument.partition("=")
        folder = configuration.config_folder() / group
        names = [n for n in chosen.strip("[]").split(",") if (folder / f"{n}.yaml").exists()]
        if group in groups and names:  # of a sweep's choices, the first
            listed = chosen.startswith("[")
            choices.append(f"{group}=[{','.join(names)}]" if listed else f"{group}={names[0]}")
    with initialize_config_dir(str(configuration.config_folder()), version_base="1.3"):
        try:
            composed = compose("train", overrides=choices)
        except HydraException:  # choices that do not go together
            composed = compose("train")
    return [*groups, *(key for key, _ in configuration.leaves(composed))]


def _discard_if_empty(folder: Path) -> None:
    """Remove a run folder that holds nothing but what Hydra has just written."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra"}:
        shutil.rmtree(folder)


def _raise_interrupted(signal_number: int, _frame: FrameType | None) -> None:
    raise Interrupted(signal_number)


def _refuse_other_launchers() -> None:
    """Each process of torchrun would make a run folder of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and RUN_FOLDER not in os.environ:
        raise UserError(
            "started with several processes (WORLD_SIZE is set): start one python train.py, "
            "which starts the others: trainer=ddp trainer.devices=4"
        )


def register_resolvers() -> None:
    """The parts of folder names that conf/train.yaml asks for; once in a process."""
    if OmegaConf.has_resolver("run_id"):
        return
    OmegaConf.register_new_resolver("run_id", lambda: secrets.token_hex(3), use_cache=True)
    OmegaConf.register_new_resolver("swept", _what_varies)


def _what_varies(overrides: Sequence[str], job_number: int) -> str:
    """The name of a sweep's job: those of its overrides that the sweep varies."""
    swept = {
        override.key_or_group for override in _parse(sys.argv[1:]) if override.is_sweep_override()
    }
    varying = [o for o in _parse(list(overrides)) if o.key_or_group in swept]
    names = [f"{o.key_or_group}-{o.input_line.partition('=')[2]}" for o in varying]  # type: ignore[union-attr]
    return "_".join(map(_as_folder_name, names)) or str(job_number)


def _as_folder_name(text: str) -> str:
    """Without = , / and the like; a path gets a checksum, as others may look the same without /."""
    name = re.sub(r"[^\w.+-]+", "-", text).strip("-")
    return f"{name}-{zlib.crc32(text.encode()):08x}" if "/" in text else name


def _parse(arguments: Sequence[str]) -> list[Override]:
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    return OverridesParser.create().parse_overrides(overrides)


def _with_resumed_overrides(arguments: list[str]) -> list[str]:
    """For `resume=<run folder>`: the folder's overrides, then the new ones, into the same folder.

    Raises:
        UserError: the folder is not there, or is not a run folder.
    """
    resume = [a.partition("=")[2] for a in arguments if a.startswith("resume=")]
    if not resume or resume[-1] in ("", "null"):
        return arguments
    folder = Path(resume[-1].strip("'\""))
    if not folder.is_dir():
        siblings = [str(p) for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        near = difflib.get_close_matches(str(folder), siblings, n=1, cutoff=0.8)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"resume={folder}: there is no such folder{hint}")
    record = folder / ".hydra" / "overrides.yaml"
    if not record.is_file():
        raise UserError(f"resume={folder}: not a run folder (it has no .hydra/overrides.yaml)")
    if {"-m", "--multirun"} & set(arguments):
        raise UserError(f"resume={folder}: one run at a time; leave -m out")
    listed = OmegaConf.to_container(OmegaConf.load(record), resolve=False)
    assert isinstance(listed, list)
    recorded = [o for o in map(str, listed) if not o.startswith("resume=")]
    quoted = "'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'"
    kept = [a for a in arguments if not a.startswith("resume=")]
    here = [f"resume={quoted}", f"hydra.run.dir={quoted}", "hydra.output_subdir=null"]
    return [*recorded, *here, *kept]  # flags come last, as argparse wants them


def _run_as_ddp_process(folder: Path) -> None:
    """A further process of a DDP run: it takes the first one's configuration as it stands.

    Going through Hydra again would compose anew and, under `-m`, start the sweep again.
    """
    from glimpse.run import run

    config = OmegaConf.load(folder / ".ddp_config.yaml")
    assert isinstance(config, DictConfig)
    warnings.simplefilter("ignore")  # rank 0 has said it already
    with contextlib.suppress(Interrupted):  # the first process tells the shell
        run(config, folder, {"data": "", "model": ""})
