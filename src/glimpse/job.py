"""Run a configuration that Hydra has composed: check it, then train, alone or as a job of a sweep.

Nothing heavy is imported before the configuration has been checked.
"""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from glimpse.command import in_shell
from glimpse.config.check import check
from glimpse.config.combinations import require_one_batch_size
from glimpse.config.explain import explain
from glimpse.config.folder import ROOT
from glimpse.config.places import require_weights
from glimpse.config.schema import REPORTED
from glimpse.distributed.place import Place, place_of, require_launched_processes
from glimpse.errors import Interrupted, UserError
from glimpse.folder_lock import NAME as LOCK
from glimpse.folder_lock import FolderInUseError
from glimpse.found_checkpoint import checkpoints_of
from glimpse.memory import without_collection
from glimpse.runs.settings import edited_settings
from glimpse.signals import handling, preemption_signals, raise_interrupted

if TYPE_CHECKING:
    from glimpse.search.pruning import Judge


def run_single(config: DictConfig) -> float | None:
    """Run once; returns the best value of the monitor, val/acc by default."""
    settings = HydraConfig.get()
    return _checked_run(config, settings, Path(settings.runtime.output_dir))


def run_of_sweep(config: DictConfig) -> float | None:
    """Run a job of a sweep that a launcher other than ours has started.

    Returns:
        The best value of the monitor, val/acc by default, for the sweeper.
    """
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    _require_one_task(place_of(os.environ))
    if config.task == "fit" and checkpoints_of(folder):
        config.resume = str(folder)  # from an earlier attempt, which SLURM may have preempted
    try:
        with _saved_before_preemption():
            return _checked_run(config, settings, folder)
    except Exception as error:
        print(f"job {settings.job.num} failed: {explain(error)}", file=sys.stderr)
        raise


def _require_one_task(place: Place) -> None:
    """Require a launcher to start one process per job: the job starts the others itself.

    Raises:
        UserError: SLURM started it several times.
    """
    if place.world_size > 1:
        raise UserError(
            f"the launcher started {place.world_size} tasks for one job, and a job starts its own "
            "processes: type hydra.launcher.tasks_per_node=1 hydra.launcher.nodes=1 trainer=ddp"
        )


@contextlib.contextmanager
def _saved_before_preemption() -> Iterator[None]:
    """Let a run save before the launcher's own handler requeues the job and exits."""
    with handling(preemption_signals(), raise_interrupted) as former:
        try:
            yield
        except Interrupted as stop:
            requeue = former.get(signal.Signals(stop.signal_number))
            if callable(requeue):
                requeue(stop.signal_number, None)
            raise


def _checked_run(config: DictConfig, settings: HydraConf, folder: Path) -> float | None:
    """Check the configuration, then run. Remove the folder if nothing was written to it."""
    try:
        check(
            config,
            settings.runtime.choices,
            root=settings.job.config_name or ROOT,
            searchpath=settings.searchpath,
        )
        if config.resume:
            _require_unedited(config, settings.overrides.task, folder)
        require_weights(config)
        if config.sweep.plan:
            raise UserError("sweep.plan=true plans a sweep: add -m")
    except BaseException:
        _discard_if_empty(config, folder)
        raise
    return run_in(config, settings, folder)


def _require_unedited(config: DictConfig, overrides: Sequence[str], folder: Path) -> None:
    """Require a resume to change only settings that are typed, so that the record stays true.

    Raises:
        UserError: it would change another. The message says what to type.
    """
    edited = edited_settings(folder, overrides, OmegaConf.to_yaml(config))
    for key, (recorded, now) in sorted(edited.items()):
        raise UserError(
            f"{folder / '.hydra'} records {key}={recorded}, but its overrides and today's files give {now}, as "
            f"one of them was edited: type {in_shell(f'{key}={recorded}')} or {in_shell(f'{key}={now}')}"
        )


def run_in(
    config: DictConfig,
    settings: HydraConf | DictConfig,
    folder: Path,
    *,
    afterwards: str = "",
) -> float | None:
    """Run a configuration that was checked. Remove the folder if nothing was written to it.

    Args:
        config: The configuration without Hydra's own part.
        settings: Hydra's own part, for the names of the files that were chosen.
        folder: The run folder.
        afterwards: The rest of the sweep after this run, for the progress bar.

    Returns:
        The best value of the monitor, val/acc by default; None without validation.
    """
    is_ours = True
    try:
        require_one_batch_size(config, settings.overrides.task)
        require_launched_processes(config.trainer, place_of(os.environ))
        with without_collection("glimpse.run"):
            from glimpse.run import run  # torch and lightning are imported from here on

        names = choices_of_run(settings.runtime.choices)
        return run(config, folder, names, judge=_judge(config, settings), afterwards=afterwards)
    except FolderInUseError:
        is_ours = False
        raise
    finally:
        if is_ours:
            _discard_if_empty(config, folder)


def _judge(config: DictConfig, settings: HydraConf | DictConfig) -> "Judge | None":
    """The judge that may stop a trial of a search early; None outside a search with a pruner."""
    search = settings.sweeper
    if search.get("trial") is None:
        return None
    from glimpse.search.place import study_path
    from glimpse.search.pruning import Judge

    return Judge(
        study_path(Path(settings.sweep.dir), search.storage),
        search.trial,
        pruner=search.pruner,
        num_epochs=config.trainer.max_epochs or 0,
        until=search.until,
    )


def choices_of_run(choices: Mapping[str, Any]) -> dict[str, str]:
    """The chosen file of each group that reports show."""
    return {group: str(choices.get(group)) for group in REPORTED}


def _discard_if_empty(config: DictConfig, folder: Path) -> None:
    """Remove a new run's folder that contains only the files that Hydra has just written."""
    if config.resume:
        return
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {".hydra", LOCK}:
        # The parent may contain other runs, or be read-only by now.
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
            folder.parent.rmdir()
